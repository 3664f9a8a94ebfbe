"""Read `parity.json`: verdicts, measurements, and the hashes of what was compared.

Its keys are described in docs/parity.schema.json.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeproof.errors import InputError
from edgeproof.files.hashing import OutputFile

REPORT = "parity.json"
PAGE = "parity.html"
SCHEMA = 3

Key = tuple[str, str]  # format, variant


@dataclass(frozen=True)
class Interval:
    """A measured value with both ends of its 95 % interval; None where it does not exist."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Compared:
    """One artifact as the parity run saw it; `metrics` is empty where it could not be opened."""

    format: str
    variant: str
    manifest: str
    files: tuple[OutputFile, ...]
    verdict: str
    reasons: tuple[str, ...]
    allow_degraded: bool
    metrics: dict[str, Interval]

    @property
    def key(self) -> Key:
        """What names it within its model."""
        return self.format, self.variant

    @property
    def name(self) -> str:
        """Format and variant, as the parity report's tables name it."""
        return f"{self.format} {self.variant}"


@dataclass(frozen=True)
class ParityReport:
    """One model's `parity.json`."""

    runtime: str
    text: str
    positions: int
    compared: tuple[Compared, ...]


def read_report(path: Path) -> ParityReport:
    """Parse a report.

    Raises:
        InputError: missing, malformed, or of another schema.
    """
    try:
        raw = json.loads(path.read_text("utf-8"))
        if raw["schema"] != SCHEMA:
            raise InputError(f"{path}: schema {raw['schema']}, not {SCHEMA}; compare again:{AGAIN}")
        reference = raw["reference"]
        return ParityReport(
            runtime=reference["runtime"],
            text=reference["text"]["name"],
            positions=reference["positions"],
            compared=tuple(_compared(item) for item in raw["artifacts"]),
        )
    except FileNotFoundError:
        raise InputError(f"{path}: missing; compare first:{AGAIN}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: not a parity report; compare again:{AGAIN}") from None


AGAIN = " python -m runtimes.parity"


def _compared(raw: dict[str, Any]) -> Compared:
    measurement = raw["measurement"]
    return Compared(
        format=raw["format"],
        variant=raw["variant"],
        manifest=raw["manifest"],
        files=tuple(OutputFile(**item) for item in raw["files"]),
        verdict=raw["verdict"],
        reasons=tuple(raw["reasons"]),
        allow_degraded=raw["allow_degraded"] is True,
        metrics={
            name: Interval(**estimate)
            for name, estimate in (measurement["estimates"] if measurement else {}).items()
        },
    )


def metrics_json(metrics: dict[str, Interval]) -> dict[str, Any]:
    """The same as JSON, sorted."""
    return {name: asdict(metrics[name]) for name in sorted(metrics)}
