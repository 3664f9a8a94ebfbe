"""`parity.json`: its names, its schema's number, and the only reader.

The file's keys are described in docs/parity.schema.json. Here is what release, upkeep, demo and
tables take from it: verdicts, measurements, and the hashes of what was compared.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeproof.display import errors_text
from edgeproof.errors import InputError
from edgeproof.files.hashing import OutputFile
from edgeproof.files.schema import Schema
from edgeproof.verdicts.verdict import Verdict

REPORT = "parity.json"
PAGE = "parity.html"
AGAIN = " python -m runtimes.parity"
# Also in docs/parity.schema.json. Before 3 a report did not say which bytes it is about.
BEFORE_4 = "the report does not say what its run leaves open; compare again"
SCHEMA = Schema(current=5, oldest=3, again=f"compare again:{AGAIN}")

Key = tuple[str, str]  # format, variant


@dataclass(frozen=True)
class Interval:
    """A measured value with both ends of its 95 % interval; None where it does not exist.

    `positions` are those that it is of; None where it was measured once, or a report is older.
    """

    value: float | None
    low: float | None
    high: float | None
    positions: int | None = None

    @property
    def errors(self) -> str | None:
        """Of a share: how many positions are wrong, and at most how many more may be, in words."""
        if self.value is None or self.positions is None:
            return None
        return errors_text(self.value, math.nan if self.low is None else self.low, self.positions)


@dataclass(frozen=True)
class Compared:
    """One artifact as the parity run saw it.

    `manifest` is the SHA-256 of its edgeproof.json, `bytes` the size of its `files` together.
    `metrics` are those of the runtime, empty where it could not be opened; `of_weights` those of
    the file's weights alone, None where these were not run. `ran` is the runtime and its device,
    `activations` the type between its operators, and `unseen` says in words what that leaves open.
    `part` is how many positions all metrics are of, where these are not the whole text's.
    """

    format: str
    variant: str
    manifest: str
    files: tuple[OutputFile, ...]
    bytes: int
    effective_bpw: float
    fallback_share: float
    verdict: Verdict
    reasons: tuple[str, ...]
    allow_degraded: bool
    metrics: dict[str, Interval]
    of_weights: dict[str, Interval] | None
    ran: str | None
    activations: str | None
    unseen: tuple[str, ...]
    part: int | None = None

    @property
    def key(self) -> Key:
        """What names it within its model."""
        return self.format, self.variant

    @property
    def name(self) -> str:
        """Format and variant, as the parity report's tables name it."""
        return f"{self.format} {self.variant}"


@dataclass(frozen=True)
class Recommendation:
    """For one target, the smallest export that passes; None where none does.

    `levels` has the smallest that meets the gates of a precision, whatever its own.
    """

    target: str
    export: str | None
    levels: dict[str, str | None]


@dataclass(frozen=True)
class ParityReport:
    """One model's `parity.json`.

    `dominated_by` maps an export to the best of those that are no larger and no worse, or to None.
    """

    model: str
    runtime: str
    text: str
    positions: int
    compared: tuple[Compared, ...]
    recommendations: tuple[Recommendation, ...]
    dominated_by: dict[str, str | None]

    def of(self, manifest: str) -> Compared | None:
        """How the artifact came out whose edgeproof.json has that SHA-256, if it was compared."""
        return next((item for item in self.compared if item.manifest == manifest), None)


def read_report(path: Path) -> ParityReport:
    """Parse a report.

    Raises:
        InputError: missing, malformed, or of a schema that is not read here.
    """
    try:
        raw = json.loads(path.read_text("utf-8"))
        written_by = raw.get("environment", {}).get("versions", {}).get("edgeproof")
        SCHEMA.check(raw["schema"], str(path), written_by)
        reference, advice = raw["reference"], raw["advice"]
        return ParityReport(
            model=raw["model"],
            runtime=reference["runtime"],
            text=reference["text"]["name"],
            positions=reference["positions"],
            compared=tuple(_compared(item) for item in raw["artifacts"]),
            recommendations=tuple(
                Recommendation(item["target"], item["export"], item["levels"])
                for item in advice["recommendations"]
            ),
            dominated_by={item["export"]: item["dominated_by"] for item in advice["points"]},
        )
    except FileNotFoundError:
        raise InputError(f"{path}: missing; compare first:{AGAIN}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: not a parity report; compare again:{AGAIN}") from None


def _compared(raw: dict[str, Any]) -> Compared:
    measured, stored = raw["measurement"], raw["weights"]
    return Compared(
        format=raw["format"],
        variant=raw["variant"],
        manifest=raw["manifest"],
        files=tuple(OutputFile(**item) for item in raw["files"]),
        bytes=raw["bytes"],
        effective_bpw=stored["effective_bpw"],
        fallback_share=stored["fallback_share"],
        verdict=Verdict(raw["verdict"]),
        reasons=tuple(raw["reasons"]),
        allow_degraded=raw["allow_degraded"] is True,
        metrics=_intervals(measured["estimates"]) if measured else {},
        of_weights=_intervals(measured["weights"]) if measured and measured["weights"] else None,
        ran=measured["runtime"] if measured else None,
        **_execution(measured),
        # Before 5 every artifact was run on the whole text.
        part=None if not measured or measured.get("whole_text", True) else measured["positions"],
    )


def _execution(measured: dict[str, Any] | None) -> dict[str, Any]:
    if measured is None:
        return {"activations": None, "unseen": ()}
    found = measured.get("execution") or {"activations": None, "unseen": [BEFORE_4]}
    return {"activations": found["activations"], "unseen": tuple(found["unseen"])}


def _intervals(raw: dict[str, Any]) -> dict[str, Interval]:
    return {
        name: Interval(item["value"], item["low"], item["high"], item.get("positions"))
        for name, item in raw.items()
    }


def metrics_json(metrics: dict[str, Interval]) -> dict[str, Any]:
    """Values and intervals as JSON, sorted."""
    return {
        name: {"value": metrics[name].value, "low": metrics[name].low, "high": metrics[name].high}
        for name in sorted(metrics)
    }
