"""`python -m runtimes.parity.steps.plan`: what measuring takes, as a line of JSON."""

from __future__ import annotations

from pathlib import Path

import click

from edgeproof.command import EdgeproofCommand
from edgeproof.files.hashing import OutputFile, file_sha256
from edgeproof.steps.planned import GivenFiles, PlannedMeasuring, told
from runtimes.computing import CPU, device_option
from runtimes.parity.environment import environment
from runtimes.parity.text_options import chosen_suite, text_options
from runtimes.registry import chosen_device, other_adapter, reference_version
from runtimes.threads import threads_option

PACKAGE = "runtimes.parity.steps"
# PyTorch and a runtime, as they are imported; PyTorch's weights, an artifact's as float32, and what
# the runtime makes of them.
MEMORY_MB, WEIGHTS = 1200, 3.0
# The weights, and what a batch takes beside them: a guess, no run on a GPU has been measured.
GPU_WEIGHTS = 1.5
# Of the interpreter, which no package manager has.
PYTHON = "python"


@click.command(cls=EdgeproofCommand, name="plan")
@text_options
@click.option("--positions", type=click.IntRange(1))
@click.option("--footprint/--no-footprint", default=True)
@click.option("--localise", is_flag=True)
@click.option("--whole-text", is_flag=True)
@click.option("--other", "others", type=(str, str), multiple=True, help="A format, its runtime.")
@device_option
@threads_option
def main(
    budget: str,
    text: Path | None,
    positions: int | None,
    footprint: bool,
    localise: bool,
    whole_text: bool,
    others: tuple[tuple[str, str], ...],
    device: str,
    threads: int,
) -> None:
    """Say what measuring an artifact takes."""
    reference_version()
    for form, name in others:
        other_adapter(form, name).require()
    suite, chosen = chosen_suite(budget, text), chosen_device(device)
    versions = {k: v for k, v in environment(threads).versions.items() if k != PYTHON}
    measuring = PlannedMeasuring(
        reference=f"{PACKAGE}.reference",
        footprint=f"{PACKAGE}.footprint" if footprint else None,
        measure=f"{PACKAGE}.measure",
        report=f"{PACKAGE}.report",
        of_text={
            "budget": budget,
            "suite": suite.digest,
            "text": None if text is None else text.name,
            "threads": threads,
            "device": chosen,
            "positions": positions,
        },
        of_artifacts={
            "footprints": footprint,
            "localise": localise,
            "whole_text": whole_text,
        },
        text=None if text is None else _given(text),
        versions=versions,
        threads=threads,
        memory_mb=MEMORY_MB,
        memory_times=WEIGHTS,
        gpus=int(chosen != CPU),
        gpu_memory_times=0.0 if chosen == CPU else GPU_WEIGHTS,
    )
    click.echo(told(measuring))


def _given(text: Path) -> GivenFiles:
    record = OutputFile(text.name, text.stat().st_size, file_sha256(text))
    return GivenFiles(str(text.parent.absolute()), (record,))


if __name__ == "__main__":
    main()
