"""The parity report: one entry per artifact, as `parity.json` and as a terminal table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.artifact import Artifact
from export.artifact.atomic import write_atomic
from runtimes.parity.measure import Measurement
from runtimes.parity.verdict import Judgement, Verdict

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = 1
FULL_WIDTH = 165
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
        "notes": entry.judgement.notes,
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


@dataclass(frozen=True)
class Column:
    """A column of the terminal table; `essential` ones stay on a narrow terminal."""

    title: str
    text: Callable[[Measurement], str]
    essential: bool = False


def _number(value: float) -> str:
    return f"{value:.1e}" if abs(value) < 1e-2 else f"{value:.3f}"


def _percent(metric: str) -> Callable[[Measurement], str]:
    return lambda m: f"{m.estimates[metric].value * 100:.1f}"


def _kl_interval(m: Measurement) -> str:
    return "–".join(_number(v) for v in (m.estimates["mean_kl"].low, m.estimates["mean_kl"].high))


COLUMNS = (
    Column("mean KL", lambda m: _number(m.estimates["mean_kl"].value), essential=True),
    Column("95 % interval", _kl_interval),
    Column("weights", lambda m: _number(m.weights["mean_kl"].value) if m.weights else "exact"),
    Column("p99 KL", lambda m: _number(m.estimates["p99_kl"].value)),
    Column("max KL", lambda m: _number(m.max_kl)),
    Column("top-1 %", _percent("top1"), essential=True),
    Column("clear %", _percent("clear_top1")),
    Column("accept %", _percent("acceptance"), essential=True),
    Column("PPL ratio", lambda m: f"{m.estimates['perplexity_ratio'].value:.3f}"),
    Column("greedy", lambda m: f"{m.greedy.identical}/{m.greedy.prompts}" if m.greedy else "–"),
    Column("sampled", lambda m: f"{m.sampled.identical}/{m.sampled.prompts}" if m.sampled else "–"),
    Column("RAM MB", lambda m: f"{m.footprint.peak_mb:.0f}" if m.footprint else "–"),
)


def terminal_table(label: str, positions: int, entries: Sequence[Entry], width: int) -> Table:
    """The readable summary; below `FULL_WIDTH` characters only the essential columns."""
    from rich import box
    from rich.table import Table

    columns = [column for column in COLUMNS if column.essential or width >= FULL_WIDTH]
    title = f"{label}: exports against PyTorch fp32, {positions} positions, KL in nats"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("export", no_wrap=True)
    for name in ("MB", "bits/w", *(column.title for column in columns)):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for entry in entries:
        manifest, verdict = entry.artifact.manifest, entry.judgement.verdict
        excused = entry.accepted and verdict is not Verdict.PASS
        table.add_row(
            f"{manifest.variant.format} {manifest.variant.name}",
            f"{entry.bytes / 1e6:.1f}",
            f"{manifest.effective_bpw:.2f}",
            *(column.text(entry.measurement) if entry.measurement else "" for column in columns),
            f"[{COLOURS[verdict]}]{verdict.value}[/]{' (allowed)' if excused else ''}",
        )
    return table
