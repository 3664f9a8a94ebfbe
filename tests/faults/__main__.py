"""`make faults`: plant every fault in exports of the real model, and write docs/faults.md."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
from rich.console import Console

from edgeproof.command import EdgeproofCommand, run_main
from edgeproof.errors import GateError
from export.sources import resolve
from runtimes.parity.suite import Budget, Suite, built_in
from tests.faults.alarms import ALARMS, verdicts_on_subsets
from tests.faults.catalogue import FAULTS
from tests.faults.planting import export
from tests.faults.run import Case, Outcome, cases, run_cases
from tests.faults.table import document
from tests.tiny import FAMILIES, make_checkpoint

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
CLEAN = (
    Case("onnx", variant="fp16"),
    Case("gguf", variant="f16"),
    Case("mlc", variant="q0f16"),
    Case("onnx", variant="q8"),
    Case("gguf", variant="q8_0"),
)
# The clean exports run over so many parts of the text, each a run of its own.
PARTS = 3


@click.command(cls=EdgeproofCommand, name="faults")
@click.option("--positions", type=click.IntRange(1), default=300, show_default=True)
@click.option("--only", multiple=True, help="Faults whose names have this; writes no page.")
@click.option("--page", type=click.Path(path_type=Path), default=PAGE, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def main(positions: int, only: tuple[str, ...], page: Path, threads: int) -> None:
    """Plant every fault in real exports: each must be noticed and found, clean ones must pass.

    Exit code 1: a fault was missed, found in the wrong place, or a clean export did not pass.
    """
    console, suite = Console(), built_in(Budget.FAST)
    wanted = [fault for fault in FAULTS if not only or any(text in fault.name for text in only)]
    with tempfile.TemporaryDirectory(prefix="edgeproof-faults-") as name:
        folder = Path(name)
        real = resolve("bundled").path
        models: dict[str | None, Path] = {None: real}
        for family in {fault.model for fault in wanted if fault.model}:
            models[family] = make_checkpoint(folder / family, **FAMILIES[family])
        outcomes = []
        for outcome in run_cases(
            cases(wanted), models, suite, positions, folder / "planted", threads
        ):
            console.print(line(outcome), soft_wrap=True, highlight=False, markup=False)
            outcomes.append(outcome)
        if only:
            return _judge(outcomes)
        for part in range(PARTS):
            some = Suite(f"part {part + 1}", suite.prompts[part::PARTS])
            for outcome in run_cases(CLEAN, {None: real}, some, None, folder / "clean", threads):
                console.print(line(outcome), soft_wrap=True, highlight=False, markup=False)
                outcomes.append(outcome)
        artifacts = [
            export(real, case.form, folder / str(index), case.plant)
            for index, case in enumerate(CLEAN)
        ]
        alarms = verdicts_on_subsets(real, suite, artifacts, threads)
    page.write_text(document(outcomes, alarms, positions), "utf-8")
    console.print(f"written: {page}")
    false = sum(verdicts[verdict] for verdicts in alarms.values() for verdict in ALARMS)
    if false:
        raise GateError(f"{false} false alarms in clean exports")
    _judge(outcomes)


def line(outcome: Outcome) -> str:
    """One outcome for the terminal."""
    fault = outcome.case.fault
    name = fault.name if fault else "clean"
    right = "" if outcome.correct else "  WRONG"
    return f"{name:26} {outcome.entry.name:14} {outcome.verdict.value:12} {outcome.where}{right}"


def _judge(outcomes: list[Outcome]) -> None:
    wrong = [outcome for outcome in outcomes if not outcome.correct]
    if wrong:
        names = ", ".join(sorted({line(outcome).split("  ")[0] for outcome in wrong}))
        raise GateError(f"{len(wrong)} of {len(outcomes)} came out wrong: {names}")


if __name__ == "__main__":
    run_main(main)
