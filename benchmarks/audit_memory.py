"""`python -m benchmarks.audit_memory`: what an audit holds beside its runtime and the reference.

A checkpoint of a published shape in bfloat16 (values that mean nothing; the bundled model's
tokenizer) and its GGUF file, which is audited with three short texts in a process of its own. Peak
memory of each phase is the kernel's (VmHWM, begun anew at each phase; Linux only). What the capture
of the reference holds is what is resident when it ends; what the runtime holds is what the file's
footprint says, which is a process that does nothing else: the mapped file, keys and values, its
buffers. The audit's own is the rest: in phases with the runtime open the peak without both, in all
others without the capture. Exit 1 when a promised figure is missed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.promises import Promises
from benchmarks.shapes import SHAPES, copy_tokenizer, make_shape
from benchmarks.time_to_verdict import phases
from runtimes.computing import LAYERS, WHOLE

OWN_MB = 1500.0
CONTEXT = 2048
POSITIONS = 24
TEXTS = (
    "The ferry left at noon with 42 people and three goats.",
    "She counted the coins twice, and then a third time.",
    "In 1999, the bridge was painted green by its neighbours.",
)
REFERENCE = "reference"
# Phases of an artifact in which its runtime is open in the process that compares, at least for a
# while: it is closed after the replies, when the next phase's peak has begun.
OPEN = ("load", "text", "replies", "the original's samples", "localising")


@dataclass(frozen=True)
class Peak:
    """The most that was resident in a phase, and what was when it ended; 10⁶ bytes."""

    subject: str
    phase: str
    most: float
    left: float


@click.command(help=__doc__)
@click.option("--shape", type=click.Choice(list(SHAPES)), default="1.7B", show_default=True)
@click.option("--dtype", default="q8_0", show_default=True, help="Of the GGUF file.")
@click.option("--whole", is_flag=True, help="Have all of the reference's weights in memory.")
@click.option("--localise", is_flag=True, help="Also say where the file diverges.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def main(shape: str, dtype: str, whole: bool, localise: bool, threads: int) -> None:
    """Make the files, audit, print the table."""
    with tempfile.TemporaryDirectory(prefix="edgeproof-audit-") as temporary:
        folder = Path(temporary)
        checkpoint = folder / shape
        make_shape(checkpoint, "llama", shape, sparse=False, max_position_embeddings=CONTEXT)
        copy_tokenizer(checkpoint)
        environment = {**os.environ, "EDGEPROOF_CACHE": str(folder / "cache")}
        export = [sys.executable, "-m", "export.gguf", "-m", checkpoint, "-d", dtype]
        subprocess.run(
            [*export, "-o", folder / "out"], env=environment, check=True, stdout=subprocess.DEVNULL
        )
        (made,) = folder.glob("out/**/*.gguf")
        file = made.rename(folder / made.name)
        text, report = folder / "text.jsonl", folder / "audit.json"
        text.write_text("".join(json.dumps({"text": line}) + "\n" for line in TEXTS), "utf-8")
        command = [
            sys.executable, "-m", "runtimes.audit", file, "--against", checkpoint,
            "--text", text, "--positions", POSITIONS, "--json", report, "--no-html", "--no-watch",
            "--whole-text", "--reference-weights", WHOLE if whole else LAYERS,
            "--threads", threads, "--log-json", *(["--localise"] if localise else []),
        ]  # fmt: skip
        peaks = _audited([*map(str, command)], environment)
        (artifact,) = json.loads(report.read_text("utf-8"))["parity"]["artifacts"]
        size = file.stat().st_size / 1e6
    runtime = float(artifact["measurement"]["footprint"]["peak_mb"])
    held = [peak for peak in peaks if peak.subject == REFERENCE][-1].left
    title = f"Audit of a {shape} {dtype} file of {size:.0f} MB: MB resident"
    table = Table("subject", "phase", title=title, title_justify="left")
    for name in ("most", "of the runtime", "the audit's own"):
        table.add_column(name, justify="right")
    own = 0.0
    for peak in peaks:
        beside = runtime if peak.subject != REFERENCE and peak.phase in OPEN else 0.0
        rest = peak.most - held - beside
        cells = [
            f"{beside:.0f}" if beside else "",
            "" if peak.subject == REFERENCE else f"{rest:.0f}",
        ]
        own = own if peak.subject == REFERENCE else max(own, rest)
        table.add_row(peak.subject, peak.phase, f"{peak.most:.0f}", *cells)
    console, promises = Console(width=100), Promises()
    console.print(table)
    kept = promises.at_most("the audit's own, MB", own, OWN_MB if shape == "1.7B" else None)
    console.print(
        f"held by the capture {held:.0f} MB, by the runtime {runtime:.0f} MB, the audit's own at"
        f" most {own:.0f} MB {kept}; verdict {artifact['verdict']}"
    )
    sys.exit(1 if promises.missed else 0)


def _audited(command: Sequence[str], environment: dict[str, str]) -> list[Peak]:
    """Run the audit: the peak of each of its phases; what else it says goes to stderr."""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        return [*_peaks(run.stderr, Path("/proc") / str(run.pid))]


def _peaks(lines: Iterable[str], process: Path) -> Iterable[Peak]:
    """A phase's peak when its end is told of, from which on the next one's is counted."""
    for spent in phases(lines):
        status = dict(
            row.split(":", 1) for row in (process / "status").read_text("ascii").splitlines()
        )
        most, left = (int(status[key].split()[0]) * 1024 / 1e6 for key in ("VmHWM", "VmRSS"))
        (process / "clear_refs").write_text("5")  # the peak begins anew; see proc(5)
        yield Peak(spent.subject, spent.phase, most, left)


if __name__ == "__main__":
    main()
