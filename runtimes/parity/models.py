"""Which models are compared, with what, and each one's result."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

from edgeproof.artifact import MANIFEST, open_artifact
from edgeproof.artifact.run_record import PlannedArtifact, RunRecord
from edgeproof.errors import InputError
from edgeproof.verdicts import REPORT
from runtimes.formats import reader, reader_of
from runtimes.parity.awaited import Patient, in_rounds
from runtimes.parity.environment import environment
from runtimes.parity.original import original_of
from runtimes.parity.result import ModelResult, Unreadable
from runtimes.parity.run import Conditions, ParityRun, Request, patient_parity
from runtimes.registry import adapter_of, other_adapter

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComparedModel:
    """Artifacts of one checkpoint to compare: its model's name, and where parity.json goes.

    Without a label its artifacts name it. What is `unreadable` was asked for, too. Of a recovered
    checkpoint, `original` is what it was made from, where that is known.
    """

    label: str | None
    checkpoint: Path
    requests: Sequence[Request]
    report: Path
    unreadable: Sequence[Unreadable] = ()
    original: str | None = None


def plain_models(
    record: RunRecord, root: Path, original: str | None, *, allow_degraded: bool
) -> list[ComparedModel]:
    """What an export made below a root of each model as it is.

    `original` is what such a model was recovered from, where a recovery made it.
    """
    return [
        ComparedModel(
            model.label,
            Path(model.checkpoint),
            _requests(model.artifacts, root, allow_degraded=allow_degraded),
            root / model.label / REPORT,
            original=original,
        )
        for model in record.models
        if model.artifacts
    ]


def recovered_models(record: RunRecord, root: Path, *, allow_degraded: bool) -> list[ComparedModel]:
    """What was made below a root of each model's recovered checkpoints; their reports are its."""
    return [
        ComparedModel(
            model.label,
            Path(recovery.checkpoint or ""),
            _requests(recovery.variants, root, allow_degraded=allow_degraded),
            root / model.label / REPORT,
            original=model.checkpoint,
        )
        for model in record.models
        for recovery in model.made
    ]


def _requests(
    artifacts: Sequence[PlannedArtifact], root: Path, *, allow_degraded: bool
) -> list[Request]:
    return [
        Request(root / item.path, item.allow_degraded or allow_degraded, item.runtime)
        for item in artifacts
    ]


def told_apart(
    models: Sequence[ComparedModel],
) -> tuple[list[ComparedModel], list[Unreadable]]:
    """Models with those of their artifacts that say what they are, and the others by their reasons.

    The second are those of models of which nothing can be read: there is no report to name them.

    Raises:
        InputError: a folder without a manifest.
    """
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


def require_runtimes(
    models: Sequence[ComparedModel], planned: RunRecord | None, awaited: Collection[str]
) -> None:
    """Refuse a runtime that was asked for, also of what is `planned`, and cannot run here.

    What comes with the usual runtime of an `awaited` format is not here yet.

    Raises:
        InputError: it does not execute the format, or what is to be installed.
    """
    asked = {}
    for request in (request for model in models for request in model.requests):
        if request.runtime is not None:
            artifact = request.opened()
            adapter = adapter_of(artifact, request.runtime)
            asked[artifact.manifest.variant.format, request.runtime] = adapter
    for run in planned.models if planned else ():
        for variant in (variant for item in run.recovered for variant in item.variants):
            if variant.runtime is not None:
                adapter = other_adapter(variant.format, variant.runtime)
                asked[variant.format, variant.runtime] = adapter
    for (form, _), adapter in asked.items():
        if form not in awaited or adapter.extra != reader(form).adapter.extra:
            adapter.require()


def compare_models(
    models: Sequence[ComparedModel], how: Conditions, before: Mapping[Path, ModelResult]
) -> Iterator[tuple[Path, ModelResult]]:
    """Compare models; the report that a result goes into, and all that this one then has.

    That is what it has `before`, and what its models give, one after the other. A model whose
    artifacts wait for their runtime gives way to those after it.

    Raises:
        InputError: a checkpoint is gone, or a recovered one's original.
    """
    reports = list(dict.fromkeys(model.report for model in models))
    ordered = sorted(models, key=lambda model: reports.index(model.report))
    left = Counter(model.report for model in models)
    found: dict[int, ModelResult] = {}
    for number, result in in_rounds([_compared(model, how) for model in ordered]):
        found[number], report = result, ordered[number].report
        left[report] -= 1
        if not left[report]:
            own = [found[n] for n, model in enumerate(ordered) if model.report == report]
            yield report, reduce(joined, ([before[report]] if report in before else []) + own)


def joined(first: ModelResult, second: ModelResult) -> ModelResult:
    """Two results of one model: `second` has other artifacts of it, on the same text.

    What both were compared with is said as `first` has it.
    """
    return replace(
        first,
        entries=first.entries + second.entries,
        unreadable=first.unreadable + second.unreadable,
    )


def _compared(model: ComparedModel, how: Conditions) -> Patient[ModelResult]:
    """Compare one checkpoint's artifacts.

    Raises:
        InputError: the checkpoint is gone, or, of a recovered one, its original.
    """
    original = original_of(model.checkpoint, model.original)
    reference, entries = yield from patient_parity(
        ParityRun(model.checkpoint, model.requests, how, original)
    )
    label = model.label or model.requests[0].opened().manifest.model.name
    result = ModelResult(
        label, reference, environment(how.threads), tuple(entries), tuple(model.unreadable)
    )
    for entry in result.entries:
        facts = {"model": label, "artifact": str(entry.artifact.subject)}
        verdict = entry.judgement.verdict.value
        log.info("compared", extra={**facts, "verdict": verdict, "accepted": entry.accepted})
    return result
