"""Compare inspected files with their original, by the parity run, and rank them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from runtimes.audit.description import Against, Described, against, describe
from runtimes.audit.inspection import Inspection
from runtimes.audit.ranking import Ranked, ranked
from runtimes.audit.subjects import Found
from runtimes.located import Model
from runtimes.parity.divergence import PositionMetrics
from runtimes.parity.environment import environment
from runtimes.parity.original import original_of
from runtimes.parity.result import Entry, ModelResult, Unreadable
from runtimes.parity.run import Extent, Request, run_parity
from runtimes.parity.suite import Suite


@dataclass(frozen=True)
class Audit:
    """What came of it; `ranking` has the files that were compared."""

    result: ModelResult
    ranking: Sequence[Ranked]
    inspected: Sequence[Inspection]


def audit(
    found: Found,
    model: Model,
    suite: Suite,
    threads: int,
    extent: Extent,
    *,
    allow_degraded: bool,
) -> Audit:
    """Compare files with a model, each as an artifact made of what was found in it.

    Raises:
        InputError: the model cannot be loaded, or no file can be opened.
    """
    original = against(model.path, model.name)
    described, broken = _described(found.inspected, original)
    broken += [Unreadable(str(item.path), item.reason) for item in found.refused]
    if not described:
        raise InputError(broken[0].reason)
    kept: dict[str, Sequence[PositionMetrics]] = {}

    def keep(artifact: Artifact, counted: Sequence[PositionMetrics]) -> None:
        kept[artifact.manifest.variant.name] = counted

    requests = [
        Request(item.artifact.subject, allow_degraded, found=item.artifact)
        for item in described.values()
    ]
    reference, entries = run_parity(
        model.path,
        suite,
        requests,
        threads,
        {},
        replace(extent, keep=keep),
        original=original_of(model.path, None),
    )
    entries = [_noted(entry, described, found.inspected) for entry in entries]
    result = ModelResult(model.name, reference, environment(threads), tuple(entries), tuple(broken))
    return Audit(result, ranked(entries, kept), found.inspected)


def _described(
    inspected: Sequence[Inspection], original: Against
) -> tuple[dict[str, Described], list[Unreadable]]:
    """By their names those that a runtime may open, and why the others cannot be."""
    described: dict[str, Described] = {}
    broken: list[Unreadable] = []
    for item in inspected:
        if item.broken is not None:
            broken.append(Unreadable(item.name, f"{item.subject}: {item.broken}"))
            continue
        try:
            described[item.name] = describe(item, original)
        except InputError as error:
            broken.append(Unreadable(item.name, str(error)))
    return described, broken


def _noted(entry: Entry, described: dict[str, Described], found: Sequence[Inspection]) -> Entry:
    """With what was found before it ran."""
    name = entry.artifact.manifest.variant.name
    (inspected,) = (item for item in found if item.name == name)
    unread = described[name].unread
    notes = [*inspected.warnings]
    if unread is not None:
        notes.append(f"weights were not compared one by one: {unread}")
    return replace(entry, judgement=entry.judgement.noted(*notes))
