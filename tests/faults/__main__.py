"""`make faults`: plant every fault in exports of the real model, and write docs/faults.md."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
from rich.console import Console

from edgeproof.command import EdgeproofCommand
from edgeproof.errors import GateError
from export.sources import resolve
from runtimes.parity.suite import Budget, built_in
from tests.faults.alarms import verdicts_on_subsets
from tests.faults.planting import export
from tests.faults.records import Record, Records, alarms, code_revision
from tests.faults.run import Case, run_cases
from tests.faults.selection import CLEAN, everything
from tests.faults.table import document, label
from tests.tiny import FAMILIES, make_checkpoint

ROOT = Path(__file__).parents[2]
PAGE, ROWS = ROOT / "docs" / "faults.md", ROOT / "docs" / "faults.jsonl"
POSITIONS = 300


@click.command(cls=EdgeproofCommand, name="faults")
@click.option("--positions", type=click.IntRange(1), default=POSITIONS, show_default=True)
@click.option("--only", multiple=True, help="Rows whose label has this; writes no page.")
@click.option("--page", type=click.Path(path_type=Path), default=PAGE, show_default=True)
@click.option("--rows", type=click.Path(path_type=Path), default=ROWS, show_default=True)
@click.option("--keep", is_flag=True, help="Also rows that other revisions of the code measured.")
@click.option("--page-only", is_flag=True, help="Measure nothing, write the page of what is known.")
@click.option("--alarms-only", is_flag=True, help="Measure clean exports on halves of the text.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def main(
    positions: int,
    only: tuple[str, ...],
    page: Path,
    rows: Path,
    keep: bool,
    page_only: bool,
    alarms_only: bool,
    threads: int,
) -> None:
    """Plant every fault in real exports: each must be noticed and found, clean ones must pass.

    What is measured is kept, one row at a time: a run that was cut off goes on where it was, also
    on another machine, with --keep after a commit too.
    Exit code 1: a fault was missed, found in the wrong place, or a clean export did not pass.
    """
    console, records, revision = Console(), Records(rows), code_revision()
    wanted = [case for case in everything() if not only or any(t in label(case) for t in only)]
    chosen = records.missing([] if alarms_only else wanted, None if keep else revision)
    with tempfile.TemporaryDirectory(prefix="edgeproof-faults-") as name:
        folder = Path(name)
        for outcome in run_cases(
            [] if page_only else chosen,
            _models(chosen, folder),
            built_in(Budget.FAST),
            positions,
            folder / "planted",
            threads,
        ):
            row = Record.of(outcome, revision)
            records.add(row)
            right = "" if row.right else "  WRONG"
            text = f"{label(outcome.case):50} {row.verdict.value:12} {row.where}{right}"
            console.print(text, soft_wrap=True, highlight=False, markup=False)
        clean = [case for case in CLEAN if case in wanted]
        if alarms_only or not (only or page_only):
            _measure_alarms(clean, records, None if keep else revision, folder, threads)
    records.tidy()
    found = records.of(wanted)
    if not only:
        page.write_text(document(found, records.alarms(), positions, len(wanted)), "utf-8")
        console.print(f"written: {page}")
        false = sum(alarm.false for alarm in records.alarms().values())
        if false:
            raise GateError(f"{false} false alarms in clean exports")
    wrong = [label(case) for case, row in found if not row.right]
    if wrong:
        raise GateError(f"{len(wrong)} of {len(found)} came out wrong: {', '.join(wrong)}")


def _models(chosen: list[Case], folder: Path) -> dict[str | None, Path]:
    """The checkpoint folders that these cases need."""
    families = {case.model for case in chosen}
    models: dict[str | None, Path] = {
        family: make_checkpoint(folder / family, **FAMILIES[family])
        for family in families
        if family is not None
    }
    return {None: resolve("bundled").path, **models} if None in families else models


def _measure_alarms(
    clean: list[Case], records: Records, revision: str | None, folder: Path, threads: int
) -> None:
    """What clean exports come out as on parts of the default text, each measured once.

    With a revision, again where another one has measured it.
    """
    known = records.alarms()
    real = resolve("bundled").path
    for case in clean:
        name = label(case)
        if name in known and revision in (None, known[name].revision):
            continue
        artifact = export(real, case.form, folder / "clean" / case.stored, case.plant)
        verdicts = verdicts_on_subsets(real, built_in(Budget.DEFAULT), [artifact], threads)
        for counted in verdicts.values():
            row = alarms(name, counted, code_revision())
            records.add(row)
            click.echo(f"{name}: {row.verdicts}")


if __name__ == "__main__":
    main()
