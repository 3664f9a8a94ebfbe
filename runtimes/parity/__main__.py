"""`python -m runtimes.parity`: compare artifacts with PyTorch, print a table, write the reports."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeproof.artifact import MANIFEST, open_artifact
from edgeproof.artifact.run_record import load_run_record
from edgeproof.command import EdgeproofCommand, root_option
from edgeproof.display import table_console
from edgeproof.errors import GateError, InputError
from edgeproof.files.space import require_files
from edgeproof.verdicts import REPORT
from runtimes.adapter import OptionalModule
from runtimes.formats import reader_of
from runtimes.parity.text_options import chosen_suite, text_options
from runtimes.parity.watch import journal_of, watch
from runtimes.runtime_option import runtime_option

if TYPE_CHECKING:
    from runtimes.parity.result import ModelResult, Unreadable
    from runtimes.parity.run import Extent, Request
    from runtimes.parity.suite import Suite

KEPT = "reports that are written, and what PyTorch said, are kept; the same command goes on"
ARGUMENTS = "edgeproof.arguments"  # in a command's context
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"  # GitHub Actions shows that file with the run
# Loaded before anything is compared, so that a missing package is said at once.
PACKAGES = ("junitparser", "matplotlib", "scipy")
OUTPUTS = OptionalModule("runtimes.parity.report.outputs", PACKAGES, "parity")

log = logging.getLogger(__name__)


class WatchedCommand(EdgeproofCommand):
    """A command that runs itself in a process of its own, and survives that one's crashes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments as they were typed."""
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Watch, or be watched."""
        if not ctx.params.pop("watch") or ctx.params["journal"] is not None:
            return super().invoke(ctx)
        return ctx.exit(watch("runtimes.parity", ctx.meta[ARGUMENTS]))


@click.command(cls=WatchedCommand, name="parity", kept=KEPT)
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path))
@root_option("; its run.json names what to compare")
@click.option(
    "--checkpoint",
    type=click.Path(file_okay=False, path_type=Path),
    help="Checkpoint folder of the ARTIFACTS given.",
)
@click.option(
    "--original",
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
@click.option("--threads", type=click.IntRange(1), default=os.cpu_count(), show_default=True)
@click.option(
    "--watch/--no-watch",
    default=True,
    show_default=True,
    envvar="EDGEPROOF_WATCH",
    help="Compare in a process of its own: a library that crashes over an artifact is a FAIL of"
    " that artifact, and the run is begun again without it.",
)
@click.option("--journal", type=click.Path(path_type=Path), hidden=True)
@click.option("--crashed", type=(str, str, str), multiple=True, hidden=True)
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
    the text decides to be bad is not run on the rest.

    \b
    Examples:
      python -m runtimes.parity
      python -m runtimes.parity --budget full --whole-text
      python -m runtimes.parity artifacts/my-model/gguf/q8_0 --checkpoint ./my-model
      python -m runtimes.parity --text my-prompts.jsonl
      python -m runtimes.parity artifacts/my-model/onnx/q4 --checkpoint ./my-model --localise
      python -m runtimes.parity --junit parity.xml --markdown parity.md
    """  # noqa: D301
    outputs = OUTPUTS.load()
    from runtimes.parity.report.terminal import print_summary
    from runtimes.parity.run import Extent, Request

    suite = chosen_suite(budget, text)
    if artifacts:
        if checkpoint is None:
            raise InputError("--checkpoint DIR is needed with explicit artifacts")
        requests = [Request(path, allow_degraded, runtime) for path in artifacts]
        models = [ComparedModel(None, checkpoint, requests, Path(REPORT))]
        gates: Mapping[str, Mapping[str, float]] = {}
    else:
        if runtime is not None:
            raise InputError("--runtime needs explicit artifacts: --runtime NAME ARTIFACT …")
        if checkpoint is not None:
            raise InputError("--checkpoint needs explicit artifacts: run.json names their own")
        models, gates = recorded(root, allow_degraded=allow_degraded)
    models, lost = told_apart(models)
    for item in lost:
        click.echo(f"FAIL, in no report: {item.reason}", err=True)
    if json_path is not None and len(models) > 1:
        raise InputError(f"--json is for one model, this run has {len(models)}: leave it out")
    require_files(*(json_path or model.report for model in models), junit, markdown_path)
    extent = Extent(positions, footprint, localise, whole_text, journal_of(journal, crashed))
    results = []
    for model in models:
        result = compare_model(model, original, suite, threads, gates, extent)
        for path in outputs.write_reports(result, json_path or model.report, not no_html):
            click.echo(f"report: {path}")
        results.append(result)
    if len(results) > 1:
        print_summary(table_console(), results)
        if not no_html:
            over_all = outputs.write_models_page(results, [m.report for m in models], root)
            click.echo(f"report: {over_all}")
    step_summary = os.environ.get(STEP_SUMMARY)
    outputs.write_summaries(
        results, junit, markdown_path, Path(step_summary) if step_summary else None
    )
    entries = [entry for result in results for entry in result.entries]
    refused = [entry for entry in entries if not entry.accepted]
    unreadable = [item for model in models for item in model.unreadable] + lost
    if refused or unreadable:
        names = [f"{e.artifact.path} {e.judgement.verdict.value}" for e in refused]
        names += [item.reason for item in unreadable]
        total = len(entries) + len(unreadable)
        raise GateError(f"{len(names)} of {total} artifacts did not pass: {', '.join(names)}")


@dataclass(frozen=True)
class ComparedModel:
    """One model to compare: its name, its checkpoint, its artifacts, and where parity.json goes.

    Without a label its artifacts name it. What is `unreadable` was asked for, too.
    """

    label: str | None
    checkpoint: Path
    requests: Sequence[Request]
    report: Path
    unreadable: Sequence[Unreadable] = ()


def recorded(
    root: Path, *, allow_degraded: bool
) -> tuple[list[ComparedModel], Mapping[str, Mapping[str, float]]]:
    """What the last export made below a root, and its plan's gates.

    Raises:
        InputError: there is no record of one.
    """
    from runtimes.parity.run import Request

    record = load_run_record(root)
    models = [
        ComparedModel(
            model.label,
            Path(model.checkpoint),
            [
                Request(root / item.path, item.allow_degraded or allow_degraded)
                for item in model.artifacts
            ],
            root / model.label / REPORT,
        )
        for model in record.models
    ]
    return models, record.gates


def told_apart(
    models: Sequence[ComparedModel],
) -> tuple[list[ComparedModel], list[Unreadable]]:
    """Models with those of their artifacts that say what they are, and the others by their reasons.

    The second are those of models of which nothing can be read: there is no report to name them.

    Raises:
        InputError: a folder without a manifest.
    """
    from runtimes.parity.result import Unreadable

    told, lost = [], []
    for model in models:
        requests, unreadable = [], []
        for request in model.requests:
            try:
                reader_of(open_artifact(request.path))
                requests.append(request)
            except InputError as error:
                if not (request.path / MANIFEST).exists():
                    raise
                unreadable.append(Unreadable("/".join(request.path.parts[-2:]), str(error)))
        if requests:
            told.append(replace(model, requests=requests, unreadable=unreadable))
        else:
            lost += unreadable
    return told, lost


def compare_model(
    model: ComparedModel,
    original: str | None,
    suite: Suite,
    threads: int,
    gates: Mapping[str, Mapping[str, float]],
    extent: Extent,
) -> ModelResult:
    """Compare one model's artifacts; print the table and the reasons."""
    from runtimes.parity.environment import environment
    from runtimes.parity.original import original_of
    from runtimes.parity.report.terminal import print_result
    from runtimes.parity.result import ModelResult
    from runtimes.parity.run import run_parity

    reference, entries = run_parity(
        model.checkpoint,
        suite,
        model.requests,
        threads,
        gates,
        extent,
        original=original_of(model.checkpoint, original),
    )
    label = model.label or open_artifact(model.requests[0].path).manifest.model.name
    result = ModelResult(
        label, reference, environment(threads), tuple(entries), tuple(model.unreadable)
    )
    print_result(table_console(), result)
    for entry in result.entries:
        facts = {"model": label, "artifact": str(entry.artifact.path)}
        verdict = entry.judgement.verdict.value
        log.info("compared", extra={**facts, "verdict": verdict, "accepted": entry.accepted})
    return result


if __name__ == "__main__":
    main()
