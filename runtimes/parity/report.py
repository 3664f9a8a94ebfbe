"""The parity report: one entry per artifact, as `parity.json` and as a terminal table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.artifact import Artifact
from export.artifact.atomic import write_atomic
from runtimes.parity.measure import Measurement
from runtimes.parity.statistics import Estimate
from runtimes.parity.verdict import Judgement, Verdict

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = 1
COLOURS = {
    Verdict.PASS: "green",
    Verdict.DEGRADED: "yellow",
    Verdict.FAIL: "red",
    Verdict.INCONCLUSIVE: "magenta",
}


@dataclass(frozen=True)
class Entry:
    """One artifact's result; `measurement` is None when it could not be opened."""

    artifact: Artifact
    allow_degraded: bool
    judgement: Judgement
    measurement: Measurement | None

    @property
    def accepted(self) -> bool:
        """Whether the plan's requirement is met."""
        if self.judgement.verdict in (Verdict.DEGRADED, Verdict.INCONCLUSIVE):
            return self.allow_degraded
        return self.judgement.verdict is Verdict.PASS

    @property
    def bytes(self) -> int:
        """Size of the whole artifact folder, without the manifest."""
        return sum(item.bytes for item in self.artifact.manifest.outputs)


def write_report(
    path: Path, label: str, reference: dict[str, Any], entries: Sequence[Entry]
) -> None:
    """Write `parity.json` atomically. Numbers that do not exist are null."""
    data = {
        "schema": SCHEMA,
        "model": label,
        "reference": reference,
        "artifacts": [_entry_json(entry) for entry in entries],
        "accepted": all(entry.accepted for entry in entries),
    }
    text = json.dumps(_finite(data), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode())


def _entry_json(entry: Entry) -> dict[str, Any]:
    manifest = entry.artifact.manifest
    return {
        "format": manifest.variant.format,
        "variant": manifest.variant.name,
        "precision": manifest.variant.precision.value,
        "recipe": manifest.recipe,
        "files": [asdict(item) for item in manifest.outputs],
        "bytes": entry.bytes,
        "weights": manifest.weights,
        "verdict": entry.judgement.verdict.value,
        "reasons": entry.judgement.reasons,
        "allow_degraded": entry.allow_degraded,
        "accepted": entry.accepted,
        "measurement": asdict(entry.measurement) if entry.measurement else None,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def terminal_table(label: str, positions: int, entries: Sequence[Entry]) -> Table:
    """The readable summary."""
    from rich.table import Table

    table = Table(
        title=f"{label}: exports against PyTorch fp32, {positions} positions", title_justify="left"
    )
    table.add_column("export", no_wrap=True)
    for name in (
        "MB", "bits/w", "mean KL", "95 % interval", "weights KL", "p99 KL", "max KL", "top-1",
        "clear", "accept", "PPL ratio", "greedy",
    ):  # fmt: skip
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for entry in entries:
        table.add_row(*_row(entry))
    return table


def _row(entry: Entry) -> list[str]:
    manifest, verdict = entry.artifact.manifest, entry.judgement.verdict
    colour = COLOURS[verdict]
    mark = f"[{colour}]{verdict.value}[/]{' (allowed)' if _excused(entry) else ''}"
    head = [
        f"{manifest.variant.format} {manifest.variant.name}",
        f"{entry.bytes / 1e6:.1f}",
        f"{manifest.effective_bpw:.2f}",
    ]
    m = entry.measurement
    if m is None:
        return [*head, *[""] * 10, mark]
    greedy = f"{m.greedy.identical}/{m.greedy.prompts}" if m.greedy else "–"
    return [
        *head,
        _number(m.estimates["mean_kl"].value),
        _interval(m.estimates["mean_kl"]),
        _number(m.weights["mean_kl"].value) if m.weights else "exact",
        _number(m.estimates["p99_kl"].value),
        _number(m.max_kl),
        _percent(m.estimates["top1"].value),
        _percent(m.estimates["clear_top1"].value),
        _percent(m.estimates["acceptance"].value),
        f"{m.estimates['perplexity_ratio'].value:.3f}",
        greedy,
        mark,
    ]


def _excused(entry: Entry) -> bool:
    return entry.accepted and entry.judgement.verdict is not Verdict.PASS


def _number(value: float) -> str:
    return f"{value:.1e}" if abs(value) < 1e-2 else f"{value:.3f}"


def _interval(estimate: Estimate) -> str:
    return f"{_number(estimate.low)} – {_number(estimate.high)}"


def _percent(value: float) -> str:
    return f"{value * 100:.1f} %"
