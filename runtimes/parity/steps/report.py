"""`python -m runtimes.parity.steps.report JOB`: the reports of all that steps have measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from edgeproof.artifact import open_artifact
from edgeproof.command import EdgeproofCommand
from edgeproof.display import table_console
from edgeproof.steps.job import Job, job_argument
from edgeproof.verdicts import REPORT
from runtimes.parity.__main__ import OUTPUTS, refuse, summarise
from runtimes.parity.environment import Environment
from runtimes.parity.result import Entry, ModelResult, ReferenceFacts, Unreadable
from runtimes.parity.steps import places
from runtimes.parity.steps.kept import RESULT, KeptEntry, from_text
from runtimes.parity.together import together


@dataclass(frozen=True)
class Measured:
    """An artifact below the root: the folder of its result, or why there is none.

    `recovered` is the recovered checkpoint's folder, where it was made from one.
    """

    path: str
    allow_degraded: bool
    result: str | None
    failed: str | None
    recovered: str | None = None


@dataclass(frozen=True)
class MeasuredModel:
    """A model's artifacts, and its checkpoint on this machine."""

    label: str
    checkpoint: str
    artifacts: tuple[Measured, ...]


@dataclass(frozen=True)
class Params:
    """What is reported, and where; `lost` are models of which there is nothing, and why."""

    root: str
    models: tuple[MeasuredModel, ...]
    lost: dict[str, str]
    allow_degraded: bool
    pages: bool
    junit: str | None
    markdown: str | None


@click.command(cls=EdgeproofCommand, name="report")
@job_argument
def main(job: Job) -> None:
    """Write and print the reports that JOB asks for. Exit code 1: an artifact did not pass."""
    outputs = OUTPUTS.load()
    from runtimes.parity.report.terminal import print_result

    params = job.told(Params)
    root, results = Path(params.root), {}
    lost = [Unreadable(label, f"{label}: {reason}") for label, reason in params.lost.items()]
    for model in params.models:
        unreadable = [
            Unreadable("/".join(Path(item.path).parts[-2:]), f"{root / item.path}: {item.failed}")
            for item in model.artifacts
            if item.failed is not None
        ]
        result = _result(model, root, unreadable, allow_degraded=params.allow_degraded)
        if result is None:
            lost += unreadable
            continue
        report = root / model.label / REPORT
        results[report] = result
        print_result(table_console(), result)
        for path in outputs.write_reports(result, report, params.pages):
            click.echo(f"report: {path}")
    if len(results) > 1 and params.pages:
        over_all = outputs.write_models_page(list(results.values()), list(results), root)
        click.echo(f"report: {over_all}")
    summaries = (None if path is None else Path(path) for path in (params.junit, params.markdown))
    summarise(list(results.values()), *summaries)
    refuse(list(results.values()), lost)


def _result(
    model: MeasuredModel, root: Path, unreadable: Sequence[Unreadable], *, allow_degraded: bool
) -> ModelResult | None:
    # Those of one checkpoint say of each other what a serial run lets them say.
    entries: dict[str | None, list[Entry]] = {}
    facts: dict[str | None, ReferenceFacts] = {}
    found = []
    for item in model.artifacts:
        if item.result is None:
            continue
        path = root / item.path
        others = {
            places.ARTIFACT: str(path),
            places.CHECKPOINT: model.checkpoint,
            **({} if item.recovered is None else {places.RECOVERED: item.recovered}),
        }
        kept = from_text((Path(item.result) / RESULT).read_bytes(), others)
        found.append(kept)
        allowed = item.allow_degraded or allow_degraded
        entry = kept.entry(open_artifact(path), allow_degraded=allowed)
        entries.setdefault(item.recovered, []).append(entry)
        facts.setdefault(item.recovered, kept.reference)
    if not found:
        return None
    (first, _), *_ = groups = [together(facts[name], entries[name]) for name in entries]
    noted = tuple(entry for _, group in groups for entry in group)
    return ModelResult(model.label, first, _joined(found), noted, tuple(unreadable))


def _joined(found: Sequence[KeptEntry]) -> Environment:
    """Where all were measured: of machines that differ, what each of them is."""
    machines = dict.fromkeys((item.environment.system, item.environment.cpu) for item in found)
    first = found[0].environment
    if len(machines) == 1:
        return first
    counts = {item.environment.cpu_count for item in found}
    return Environment(
        system="; ".join(dict.fromkeys(system for system, _ in machines)),
        cpu="; ".join(dict.fromkeys(cpu for _, cpu in machines)),
        cpu_count=first.cpu_count if len(counts) == 1 else None,
        threads=first.threads,
        versions=first.versions,
    )


if __name__ == "__main__":
    main()
