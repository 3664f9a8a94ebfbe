"""`parity.json`: its names, its schema's number, and the only reader.

The file's keys are described in docs/parity.schema.json. Here is what release, upkeep, demo and
tables take from it: verdicts, measurements, and the hashes of what was compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeproof.display import errors_text
from edgeproof.errors import InputError
from edgeproof.files.hashing import OutputFile
from edgeproof.files.own import read_own, typed
from edgeproof.files.schema import Schema
from edgeproof.verdicts.verdict import Verdict

REPORT = "parity.json"
PAGE = "parity.html"
AGAIN = " python -m runtimes.parity"
# Also in docs/parity.schema.json. Before 3 a report did not say which bytes it is about.
BEFORE_4 = "the report does not say what its run leaves open; compare again"
SCHEMA = Schema(
    current=6,
    oldest=3,
    again=f"compare again:{AGAIN}",
    what="a parity report",
    writer=("environment", "versions", "edgeproof"),
)

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
    `part` is how many positions all metrics are of, where these are not the whole text's;
    `recovered` on how many tokens of calibration text, where a recovery made its checkpoint.
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
    recovered: int | None = None

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
class Unreadable:
    """What no runtime was asked to open, by its folder or file, and why."""

    folder: str
    reason: str


@dataclass(frozen=True)
class ParityReport:
    """One model's `parity.json`.

    `dominated_by` maps an export to the best of those that are no larger and no worse, or to None.
    What is `unreadable` was not compared, and is a FAIL.
    """

    model: str
    runtime: str
    text: str
    positions: int
    compared: tuple[Compared, ...]
    recommendations: tuple[Recommendation, ...]
    dominated_by: dict[str, str | None]
    unreadable: tuple[Unreadable, ...] = ()

    def of(self, manifest: str) -> Compared | None:
        """How the artifact came out whose edgeproof.json has that SHA-256, if it was compared."""
        return next((item for item in self.compared if item.manifest == manifest), None)


def read_report(path: Path) -> ParityReport:
    """Parse a report.

    Raises:
        InputError: missing, damaged, or of a schema that is not read here.
    """
    try:
        return read_own(path, SCHEMA, lambda raw: _report(typed(_Document, raw)))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; compare first:{AGAIN}") from None


@dataclass(frozen=True)
class _Execution:
    activations: str | None
    unseen: tuple[str, ...]


@dataclass(frozen=True)
class _Measurement:
    """Before 4 there is no `execution`; before 5 every artifact was run on the whole text."""

    runtime: str
    positions: int
    estimates: dict[str, Interval]
    weights: dict[str, Interval] | None
    execution: _Execution | None = None
    whole_text: bool = True


@dataclass(frozen=True)
class _Stored:
    effective_bpw: float
    fallback_share: float


@dataclass(frozen=True)
class _Recovered:
    tokens: int


@dataclass(frozen=True)
class _Artifact:
    """Before 6 nothing is said of a recovery."""

    format: str
    variant: str
    manifest: str
    files: tuple[OutputFile, ...]
    bytes: int
    weights: _Stored
    verdict: Verdict
    reasons: tuple[str, ...]
    allow_degraded: bool
    measurement: _Measurement | None
    recovered: _Recovered | None = None


@dataclass(frozen=True)
class _Text:
    name: str


@dataclass(frozen=True)
class _Reference:
    runtime: str
    text: _Text
    positions: int


@dataclass(frozen=True)
class _Point:
    export: str
    dominated_by: str | None


@dataclass(frozen=True)
class _Advice:
    recommendations: tuple[Recommendation, ...]
    points: tuple[_Point, ...]


@dataclass(frozen=True)
class _Document:
    """What is read of the file."""

    model: str
    reference: _Reference
    artifacts: tuple[_Artifact, ...]
    advice: _Advice
    unreadable: tuple[Unreadable, ...] = ()


def _report(raw: _Document) -> ParityReport:
    return ParityReport(
        model=raw.model,
        runtime=raw.reference.runtime,
        text=raw.reference.text.name,
        positions=raw.reference.positions,
        compared=tuple(map(_compared, raw.artifacts)),
        recommendations=raw.advice.recommendations,
        dominated_by={point.export: point.dominated_by for point in raw.advice.points},
        unreadable=raw.unreadable,
    )


def _compared(raw: _Artifact) -> Compared:
    measured = raw.measurement
    execution = (measured and measured.execution) or _Execution(
        None, (BEFORE_4,) if measured else ()
    )
    return Compared(
        format=raw.format,
        variant=raw.variant,
        manifest=raw.manifest,
        files=raw.files,
        bytes=raw.bytes,
        effective_bpw=raw.weights.effective_bpw,
        fallback_share=raw.weights.fallback_share,
        verdict=raw.verdict,
        reasons=raw.reasons,
        allow_degraded=raw.allow_degraded,
        metrics=measured.estimates if measured else {},
        of_weights=measured.weights if measured else None,
        ran=measured.runtime if measured else None,
        activations=execution.activations,
        unseen=execution.unseen,
        part=None if measured is None or measured.whole_text else measured.positions,
        recovered=None if raw.recovered is None else raw.recovered.tokens,
    )


def metrics_json(metrics: dict[str, Interval]) -> dict[str, Any]:
    """Values and intervals as JSON, sorted."""
    return {
        name: {"value": metrics[name].value, "low": metrics[name].low, "high": metrics[name].high}
        for name in sorted(metrics)
    }
