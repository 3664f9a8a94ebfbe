"""Compare inspected files with their original, by the parity run, and rank them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeproof.artifact import Artifact, Vocabulary
from edgeproof.errors import InputError
from runtimes.audit.description import Against, Described, against, describe
from runtimes.audit.inspection import Inspection, Origin
from runtimes.audit.ranking import Ranked, ranked
from runtimes.audit.subjects import Found, Refused
from runtimes.located import Model
from runtimes.parity.divergence import PositionMetrics
from runtimes.parity.environment import environment
from runtimes.parity.original import original_of
from runtimes.parity.result import Entry, ModelResult, Unreadable
from runtimes.parity.run import Conditions, Extent, ParityRun, Request, run_parity
from runtimes.parity.suite import Suite
from runtimes.parity.unfinished import Unfinished
from runtimes.registry import adapter_of


@dataclass(frozen=True)
class Damaged:
    """What could not be compared: as reports tell of it, its files in a folder, and its origin."""

    told: Unreadable
    folder: Path
    files: tuple[str, ...]
    origin: Origin | None


@dataclass(frozen=True)
class Audit:
    """What came of it; `ranking` has the files that were compared, `damaged` the others."""

    result: ModelResult
    ranking: Sequence[Ranked]
    inspected: Sequence[Inspection]
    damaged: Sequence[Damaged]


def audit(
    found: Found,
    model: Model,
    suite: Suite,
    threads: int,
    extent: Extent,
    *,
    allow_degraded: bool,
    runtime: str | None,
) -> Audit:
    """Compare files with a model, each as an artifact made of what was found in it.

    `runtime` names another than the formats' usual ones. What is found of each is kept until all
    are compared.

    Raises:
        InputError: the model cannot be loaded, no file can be opened, or that runtime is not here
            or does not execute one of them.
    """
    original = against(model.path, model.name)
    described, damaged = _described(found.inspected, original)
    damaged += map(_refused, found.refused)
    if not described:
        raise InputError(damaged[0].told.reason)
    if runtime is not None:
        for item in described.values():
            adapter_of(item.artifact, runtime).require()
    kept: dict[str, Sequence[PositionMetrics]] = {}

    def keep(artifact: Artifact, counted: Sequence[PositionMetrics]) -> None:
        kept[artifact.manifest.variant.name] = counted

    requests = [
        Request(item.artifact.subject, allow_degraded, runtime, found=item.artifact)
        for item in described.values()
    ]
    unfinished = Unfinished()
    conditions = Conditions(suite, threads, {}, replace(extent, keep=keep, unfinished=unfinished))
    reference, entries = run_parity(
        ParityRun(model.path, requests, conditions, original_of(model.path, None))
    )
    unfinished.done()
    entries = [_noted(entry, described, found.inspected) for entry in entries]
    broken = tuple(item.told for item in damaged)
    result = ModelResult(model.name, reference, environment(threads), tuple(entries), broken)
    return Audit(result, ranked(entries, kept), found.inspected, damaged)


def _described(
    inspected: Sequence[Inspection], original: Against
) -> tuple[dict[str, Described], list[Damaged]]:
    """By their names those that a runtime may open, and why the others cannot be."""
    described: dict[str, Described] = {}
    damaged: list[Damaged] = []

    def broken(item: Inspection, reason: str) -> None:
        told = Unreadable(item.name, reason)
        damaged.append(Damaged(told, item.folder, item.files, item.origin))

    for item in inspected:
        if item.broken is not None:
            broken(item, f"{item.subject}: {item.broken}")
            continue
        try:
            described[item.name] = describe(item, original)
        except InputError as error:
            broken(item, str(error))
    return described, damaged


def _refused(item: Refused) -> Damaged:
    """Of a folder no one knows which files are the model's."""
    files = (item.path.name,) if item.path.is_file() else ()
    return Damaged(Unreadable(str(item.path), item.reason), item.path.parent, files, item.origin)


def _noted(entry: Entry, described: dict[str, Described], found: Sequence[Inspection]) -> Entry:
    """With what was found before it ran."""
    name = entry.artifact.manifest.variant.name
    (inspected,) = (item for item in found if item.name == name)
    unread = described[name].unread
    notes = [*inspected.warnings]
    if not inspected.batches:
        notes.append(
            "padded batches were not compared: its attention has no mask, and ONNX Runtime GenAI"
            " pads on the right"
        )
    vocabulary = entry.artifact.vocabulary
    if vocabulary is not None:
        notes.append(_vocabulary_note(vocabulary))
    if unread is not None:
        notes.append(f"weights were not compared one by one: {unread}")
    return replace(entry, judgement=entry.judgement.noted(*notes))


def _vocabulary_note(vocabulary: Vocabulary) -> str:
    apart = vocabulary.own - vocabulary.original
    other = (
        f"{apart:,} more than the original's"
        if apart > 0
        else f"{-apart:,} fewer than the original's, whose further rows are of no token"
    )
    return (
        f"its vocabulary has {vocabulary.own:,} tokens, {other}: compared on the"
        f" {vocabulary.common:,} that both have"
    )
