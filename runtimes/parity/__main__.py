"""`python -m runtimes.parity`: compare artifacts with PyTorch, print a table, write the reports."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeproof.artifact.run_record import RunRecord, load_run_record
from edgeproof.command import NAMED, root_option
from edgeproof.display import table_console
from edgeproof.errors import GateError, InputError
from edgeproof.files.space import require_files, require_spared
from edgeproof.verdicts import REPORT
from runtimes.adapter import OptionalModule
from runtimes.child import run_module
from runtimes.computing import Computing, computing_options
from runtimes.parity.awaited import Awaited
from runtimes.parity.text_options import chosen_suite, text_options
from runtimes.parity.watch import journal_of
from runtimes.parity.watched import WatchedCommand, watched_options
from runtimes.runtime_option import runtime_option
from runtimes.threads import threads_option

if TYPE_CHECKING:
    from runtimes.parity.models import ComparedModel
    from runtimes.parity.result import ModelResult, Unreadable
    from runtimes.parity.unfinished import Unfinished

KEPT = (
    "reports that are written, what PyTorch said and what was found of each artifact that is done"
    " are kept; the same command goes on"
)
RECOVERY = "recovery"  # the subject of the event "spent" on making what is recovered
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"  # GitHub Actions shows that file with the run
# Loaded before anything is compared, so that a missing package is said at once.
PACKAGES = ("junitparser", "matplotlib", "scipy")
OUTPUTS = OptionalModule("runtimes.parity.report.outputs", PACKAGES, "parity")


@click.command(cls=WatchedCommand, name="parity", kept=KEPT, module="runtimes.parity")
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path))
@root_option("; its run.json names what to compare")
@click.option(
    "--checkpoint",
    type=click.Path(file_okay=False, path_type=Path),
    help="Checkpoint folder of the ARTIFACTS given.",
)
@click.option(
    "--original",
    type=NAMED,
    metavar="DIR|HUB|bundled",
    help="What a recovered checkpoint was made from, which its exports are compared with; needed"
    " where recovery.json does not say how to find it.",
)
@text_options
@click.option("--allow-degraded", is_flag=True, help="DEGRADED artifacts do not fail the run.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path),
    help="Where to write parity.json; the page parity.html goes beside it, with its name.",
)
@click.option("--no-html", is_flag=True, help="Write no page.")
@click.option(
    "--junit",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write JUnit XML for CI: a test case per artifact.",
)
@click.option(
    "--markdown",
    "markdown_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a Markdown summary. It is added to $GITHUB_STEP_SUMMARY where that is set.",
)
@runtime_option("Run the ARTIFACTS given in this runtime, not in their format's usual one.")
@click.option(
    "--positions",
    type=click.IntRange(1),
    help="Compare about this many positions, not the whole text: for slow runtimes.",
)
@click.option(
    "--whole-text",
    is_flag=True,
    help="Run every artifact on all of the text, also where its first part has decided that it is"
    " bad: for tables in which all figures are of the same text.",
)
@click.option(
    "--footprint/--no-footprint",
    default=True,
    show_default=True,
    help="Measure memory, load time and speed of each artifact in a process of its own.",
)
@click.option(
    "--localise",
    is_flag=True,
    help="Say of every artifact where it diverges, layer by layer; else of those that fail.",
)
@click.option(
    "--recover/--no-recover",
    default=False,
    show_default=True,
    help="Then make the recovered variants that the plan asks for, unless they are there, and"
    " compare them with the original too; PyTorch takes minutes for it.",
)
@click.option(
    "--await",
    "awaited",
    metavar="FORMAT FILE",
    type=(str, click.Path(dir_okay=False, path_type=Path)),
    multiple=True,
    help="Compare FORMAT's artifacts last, of all models, when FILE holds the exit code 0 of what"
    " installs their runtime meanwhile: what `make export-all` does while llama.cpp is compiled.",
)
@computing_options
@threads_option
@watched_options("an artifact")
def main(
    artifacts: tuple[Path, ...],
    root: Path,
    checkpoint: Path | None,
    original: str | None,
    budget: str,
    text: Path | None,
    allow_degraded: bool,
    json_path: Path | None,
    no_html: bool,
    junit: Path | None,
    markdown_path: Path | None,
    runtime: str | None,
    positions: int | None,
    whole_text: bool,
    footprint: bool,
    localise: bool,
    recover: bool,
    awaited: tuple[tuple[str, Path], ...],
    reference_weights: str,
    device: str,
    threads: int,
    journal: Path | None,
    crashed: tuple[tuple[str, str, str], ...],
) -> None:
    """Run artifacts in their runtimes and compare them with PyTorch.

    Without ARTIFACTS, everything that the last `python -m export` made is compared, and the
    reports are written as ROOT/<model>/parity.json and, for reading, parity.html; several models
    also get ROOT/parity.html over all of them. The verdicts are followed by what to ship for each
    target and what few bits cost. Exit code 1: a required gate was not met, or an artifact is
    broken; whatever it contains, the others are still judged. An artifact that the first part of
    the text decides to be bad is not run on the rest. With --recover, what a plan's variants with
    `recover` need is made after these verdicts, and joins the same reports.

    \b
    Examples:
      python -m runtimes.parity
      python -m runtimes.parity --budget full --whole-text
      python -m runtimes.parity --recover
      python -m runtimes.parity artifacts/my-model/gguf/q8_0 --checkpoint ./my-model
      python -m runtimes.parity --text my-prompts.jsonl
      python -m runtimes.parity artifacts/my-model/onnx/q4 --checkpoint ./my-model --localise
      python -m runtimes.parity --junit parity.xml --markdown parity.md
    """  # noqa: D301
    outputs = OUTPUTS.load()
    from runtimes.formats import reader
    from runtimes.parity import models as parts
    from runtimes.parity.report.terminal import print_result
    from runtimes.parity.run import Conditions, Extent
    from runtimes.parity.unfinished import Unfinished

    suite = chosen_suite(budget, text)
    for form, _ in awaited:
        reader(form)
    if artifacts:
        record = RunRecord((), {})  # what is named by hand is of no plan
        if recover:
            raise InputError("--recover needs a plan's run.json: leave the artifacts out")
        asked = [by_hand(artifacts, checkpoint, original, runtime, allow_degraded=allow_degraded)]
    else:
        if runtime is not None:
            raise InputError(
                "--runtime needs explicit artifacts: --runtime NAME ARTIFACT …; in a plan it is a"
                " variant's key"
            )
        if checkpoint is not None:
            raise InputError("--checkpoint needs explicit artifacts: run.json names their own")
        record = load_run_record(root)
        asked = parts.plain_models(record, root, original, allow_degraded=allow_degraded)
        if not recover:
            asked += parts.recovered_models(record, root, allow_degraded=allow_degraded)
            tell_of_unmade(record, root)
    asked, lost = parts.told_apart(asked)
    parts.require_runtimes(asked, record if recover else None, [form for form, _ in awaited])
    _require_outputs(
        _reports(asked, json_path),
        junit,
        markdown_path,
        with_pages=not no_html,
        text=text,
    )
    unfinished = Unfinished()
    extent = Extent(
        positions, footprint, localise, whole_text, journal_of(journal, crashed),
        awaited=Awaited(dict(awaited)), computing=Computing(reference_weights, device),
        unfinished=unfinished,
    )  # fmt: skip
    how = Conditions(suite, threads, record.gates, extent)
    results: dict[Path, ModelResult] = {}

    def compare(models: Sequence[ComparedModel]) -> None:
        for report, result in parts.compare_models(models, how, results):
            results[report] = result
            print_result(table_console(), result)
            for path in outputs.write_reports(result, json_path or report, not no_html):
                click.echo(f"report: {path}")

    compare(asked)
    code = make_recovered(record, root, threads) if recover else 0
    if recover and not code:
        record = load_run_record(root)
        made = parts.recovered_models(record, root, allow_degraded=allow_degraded)
        asked, unreadable = parts.told_apart(made)
        lost += unreadable
        compare(asked)
    if len(results) > 1 and not no_html:
        over_all = outputs.write_models_page(list(results.values()), list(results), root)
        click.echo(f"report: {over_all}")
    summarise(list(results.values()), junit, markdown_path)
    _end(list(results.values()), lost, unfinished, code)


def _end(
    results: Sequence[ModelResult], lost: Sequence[Unreadable], unfinished: Unfinished, code: int
) -> None:
    """End with the exit code of making what is recovered; unless that failed, all are compared.

    Raises:
        GateError: as `refuse`.
    """
    if not code:
        unfinished.done()
    refuse(results, lost)
    if code:
        sys.exit(code)


def make_recovered(record: RunRecord, root: Path, threads: int) -> int:
    """Make what the plan's recovered variants need, and export them; the exit code of that."""
    from runtimes.parity.stages import timed

    if not any(model.recovered for model in record.models):
        return 0
    with timed(RECOVERY, "making"):
        return run_module("runtimes.recover.planned", "--root", root, "--threads", str(threads))


def _reports(models: Sequence[ComparedModel], json_path: Path | None) -> list[Path]:
    """Where the reports of models go.

    Raises:
        InputError: one place is given for several.
    """
    reports = {model.report for model in models}
    if json_path is not None and len(reports) > 1:
        raise InputError(f"--json is for one model, this run has {len(reports)}: leave it out")
    return [json_path or report for report in reports]


def by_hand(
    artifacts: Sequence[Path],
    checkpoint: Path | None,
    original: str | None,
    runtime: str | None,
    *,
    allow_degraded: bool,
) -> ComparedModel:
    """The artifacts that the command line names.

    Raises:
        InputError: it does not name their checkpoint.
    """
    from runtimes.parity.models import ComparedModel
    from runtimes.parity.run import Request

    if checkpoint is None:
        raise InputError("--checkpoint DIR is needed with explicit artifacts")
    requests = [Request(path, allow_degraded, runtime) for path in artifacts]
    return ComparedModel(None, checkpoint, requests, Path(REPORT), original=original)


def summarise(
    results: Sequence[ModelResult], junit: Path | None, markdown_path: Path | None
) -> None:
    """Print what several models have in common; write what CI shows of all."""
    from runtimes.parity.report.terminal import print_summary

    if len(results) > 1:
        print_summary(table_console(), results)
    OUTPUTS.load().write_summaries(results, junit, markdown_path, _step_summary())


def _step_summary() -> Path | None:
    return Path(os.environ[STEP_SUMMARY]) if os.environ.get(STEP_SUMMARY) else None


def _require_outputs(
    reports: Sequence[Path],
    *summaries: Path | None,
    with_pages: bool,
    text: Path | None,
) -> None:
    """Refuse outputs that cannot be written, or would overwrite each other or the text.

    Raises:
        InputError: naming one.
    """
    pages = [path.with_suffix(".html") for path in reports if with_pages]
    targets = [*reports, *pages, *summaries]
    require_files(*targets, _step_summary())
    require_spared(*targets, reads=[text])


def tell_of_unmade(record: RunRecord, root: Path) -> None:
    """Say which variants of the plan are not there to be compared."""
    unmade = [
        variant.path
        for model in record.models
        for recovery in model.recovered
        if not recovery.exported
        for variant in recovery.variants
    ]
    if unmade:
        click.echo(f"not recovered yet: {', '.join(unmade)}; --recover makes them", err=True)


def refuse(results: Sequence[ModelResult], lost: Sequence[Unreadable]) -> None:
    """Refuse a run with an artifact that does not meet its requirement, or cannot be read.

    Raises:
        GateError: naming them all.
    """
    for item in lost:
        click.echo(f"FAIL, in no report: {item.reason}", err=True)
    entries = [entry for result in results for entry in result.entries]
    refused = [entry for entry in entries if not entry.accepted]
    unreadable = [item for result in results for item in result.unreadable] + list(lost)
    if refused or unreadable:
        names = [f"{e.artifact.subject} {e.judgement.verdict.value}" for e in refused]
        names += [item.reason for item in unreadable]
        total = len(entries) + len(unreadable)
        raise GateError(f"{len(names)} of {total} artifacts did not pass: {', '.join(names)}")


if __name__ == "__main__":
    main()
