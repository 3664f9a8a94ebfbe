"""`python -m runtimes.parity`: compare artifacts with PyTorch, print a table, write parity.json."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from export.artifact import open_artifact
from export.artifact.run_record import load_run_record
from export.command import EdgeproofCommand, run_main
from export.errors import GateError, InputError
from runtimes.parity.report import Entry, terminal_table, write_report
from runtimes.parity.text_options import chosen_suite, text_options
from runtimes.registry import OTHERS

if TYPE_CHECKING:
    from runtimes.parity.run import Request
    from runtimes.parity.suite import Suite

REPORT = "parity.json"
# Wide enough for the table where the output is not a terminal (CI logs).
PLAIN_WIDTH = 180


@click.command(cls=EdgeproofCommand, name="parity")
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("artifacts"),
    show_default=True,
    help="Where `python -m export` wrote; its run.json names what to compare.",
)
@click.option(
    "--checkpoint",
    type=click.Path(file_okay=False, path_type=Path),
    help="Checkpoint folder of the ARTIFACTS given.",
)
@text_options
@click.option("--allow-degraded", is_flag=True, help="DEGRADED artifacts do not fail the run.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Where to write the report."
)
@click.option(
    "--runtime",
    type=click.Choice(sorted({name for _, name in OTHERS})),
    help="Run the ARTIFACTS given in this runtime, not in their format's usual one.",
)
@click.option(
    "--positions",
    type=click.IntRange(1),
    help="Compare about this many positions, not the whole text: for slow runtimes.",
)
@click.option(
    "--footprint/--no-footprint",
    default=True,
    show_default=True,
    help="Measure memory, load time and speed of each artifact in a process of its own.",
)
@click.option("--threads", type=click.IntRange(1), default=os.cpu_count(), show_default=True)
def main(
    artifacts: tuple[Path, ...],
    root: Path,
    checkpoint: Path | None,
    budget: str,
    text: Path | None,
    allow_degraded: bool,
    json_path: Path | None,
    runtime: str | None,
    positions: int | None,
    footprint: bool,
    threads: int,
) -> None:
    r"""Run artifacts in their real runtimes and compare them with PyTorch.

    Without ARTIFACTS, everything that the last `python -m export` made is compared, and the
    reports are written as ROOT/<model>/parity.json. Exit code 1: a required gate was not met.

    \b
    Examples:
      python -m runtimes.parity
      python -m runtimes.parity --budget full
      python -m runtimes.parity artifacts/my-model/gguf/q8_0 --checkpoint ./my-model
      python -m runtimes.parity --text my-prompts.jsonl
    """
    from runtimes.parity.run import Request

    suite = chosen_suite(budget, text)
    if artifacts:
        if checkpoint is None:
            raise InputError("--checkpoint DIR is needed with explicit artifacts")
        requests = [Request(path, allow_degraded, runtime) for path in artifacts]
        entries = compare_model(
            open_artifact(artifacts[0]).manifest.model.name,
            checkpoint,
            suite,
            requests,
            threads,
            {},
            json_path or Path(REPORT),
            positions,
            footprint,
        )
    else:
        if runtime is not None:
            raise InputError("--runtime needs explicit artifacts: --runtime NAME ARTIFACT …")
        record = load_run_record(root)
        entries = []
        for model in record.models:
            requests = [
                Request(root / item.path, item.allow_degraded or allow_degraded)
                for item in model.artifacts
            ]
            target = json_path or root / model.label / REPORT
            entries += compare_model(
                model.label,
                Path(model.checkpoint),
                suite,
                requests,
                threads,
                record.gates,
                target,
                positions,
                footprint,
            )
    refused = [entry for entry in entries if not entry.accepted]
    if refused:
        names = ", ".join(f"{e.artifact.path} {e.judgement.verdict.value}" for e in refused)
        raise GateError(f"{len(refused)} of {len(entries)} artifacts did not pass: {names}")


def compare_model(
    label: str,
    checkpoint: Path,
    suite: Suite,
    requests: Sequence[Request],
    threads: int,
    gates: Mapping[str, Mapping[str, float]],
    target: Path,
    positions: int | None = None,
    footprints: bool = True,
) -> list[Entry]:
    """Compare one model's artifacts, print the table and the reasons, write the report."""
    from rich.console import Console
    from rich.markup import escape

    from runtimes.parity.run import run_parity

    reference, entries = run_parity(
        checkpoint, suite, requests, threads, gates, positions, footprints=footprints
    )
    write_report(target, label, reference, entries)
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    console.print(terminal_table(label, reference["positions"], entries, console.width))
    for entry in entries:
        lines = (*entry.judgement.reasons, *(f"note: {n}" for n in entry.judgement.notes))
        if lines:
            variant = entry.artifact.manifest.variant
            console.print(f"{variant.format} {variant.name}: {entry.judgement.verdict.value}")
        for line in lines:
            console.print(f"  - {escape(line)}")
    room, squared = reference["fp16_headroom"], reference["fp16_headroom_squared"]
    console.print(
        f"float16 headroom of the residual stream: {room:.2f}×; of its squares: {squared:.2g}×"
        + (" (norms must add them up in float32)" if squared < 1 else "")
    )
    console.print(f"report: {target}")
    return entries


if __name__ == "__main__":
    run_main(main)
