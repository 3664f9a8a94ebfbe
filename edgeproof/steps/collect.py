"""Put what steps have made into the user's folder: artifacts, and the record of what they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from edgeproof.artifact import MANIFEST, open_artifact
from edgeproof.artifact.run_record import ModelRun, PlannedArtifact, PlannedRecovery, RunRecord
from edgeproof.errors import InputError
from edgeproof.files.atomic import atomic_folder
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import remembered_sha256
from edgeproof.files.lock import exclusive
from edgeproof.files.once import once_folder
from edgeproof.steps.graph import Graph, RecoverySteps, Variant
from edgeproof.steps.results import LostResultError, Result, fetch, find
from edgeproof.steps.step import digest
from edgeproof.steps.store import Store
from edgeproof.steps.work import DIGESTS, Outcome

Say = Callable[[str], None]


@dataclass(frozen=True)
class Taken:
    """Paths of artifacts below the root, and why results were `lost`; folders of `checkpoints`.

    These are the recovered ones. Each is named by its step's key.
    """

    places: dict[str, str]
    lost: dict[str, str]
    checkpoints: dict[str, str]


def stored(store: Store, outcome: Outcome) -> Result:
    """What a step that has not failed has made.

    Raises:
        LostResultError: the store does not have it any more.
    """
    result = find(store, outcome.result)
    if result is None:
        raise LostResultError(f"{store.url}: what was put there is gone")
    return result


def collect(
    graph: Graph,
    outcomes: Mapping[str, Outcome],
    store: Store,
    root: Path,
    gates: dict[str, dict[str, float]],
    say: Say,
) -> Taken:
    """Put artifacts that were exported below the root.

    `run.json` names them, and the recovered checkpoints, which are put into the cache, so that all
    other commands find them.
    """
    taken = Taken({}, {}, {})
    places = taken.places
    runs = []
    for model in graph.models:
        label, made = model.planned.label, model.planned.checkpoint.folder
        for variant in model.all_variants:
            if variant.export is None or outcomes[variant.export.key].failed is not None:
                continue
            key = variant.export.key
            try:
                result = stored(store, outcomes[key])
                path = _artifact(variant, result, store, root / label, say)
                places[key] = path.relative_to(root).as_posix()
            except LostResultError as error:
                taken.lost[key] = str(error)
        planned = (
            PlannedArtifact(place, variant.planned.allow_degraded, runtime=variant.planned.runtime)
            for variant in model.variants
            if (place := _place(variant, places)) is not None
        )
        recovered = (_recovery(found, outcomes, taken, store) for found in model.recoveries)
        runs.append(ModelRun(label, made, tuple(planned), tuple(recovered)))
    RunRecord(tuple(runs), gates).save(root)
    return taken


def _place(variant: Variant, places: Mapping[str, str]) -> str | None:
    return None if variant.export is None else places.get(variant.export.key)


def _recovery(
    found: RecoverySteps, outcomes: Mapping[str, Outcome], taken: Taken, store: Store
) -> PlannedRecovery:
    """What was made of a recovered checkpoint, which is put where it is kept."""
    recovery, key = found.planned.recovery, found.recover.key
    paths = [_place(variant, taken.places) for variant in found.variants]
    made = tuple(
        replace(variant, path=path)
        for variant, path in zip(recovery.variants, paths, strict=True)
        if path is not None
    )
    if not made:
        return recovery
    try:
        checkpoint = _checkpoint(Path(found.folder), stored(store, outcomes[key]), store)
    except LostResultError as error:
        taken.lost[key] = str(error)
        return recovery
    taken.checkpoints[key] = str(checkpoint)
    return replace(recovery, variants=made, checkpoint=str(checkpoint), exported=True)


def _checkpoint(place: Path, result: Result, store: Store) -> Path:
    """The folder of the cache that has what a step has made: at `place`, or beside it.

    What lies at `place` may be another one: a distilled one depends on the clock, so that two
    machines make two of them.

    Raises:
        LostResultError: one of its files is damaged.
    """
    found = once_folder(place, lambda folder: fetch(store, result, folder))
    if _has(found, result):
        return found
    other = place.with_name(digest({"files": [[item.path, item.sha256] for item in result.files]}))
    return once_folder(other, lambda folder: fetch(store, result, folder))


def _has(folder: Path, result: Result) -> bool:
    """Whether all of a result's files lie in a folder."""
    return all(
        (folder / item.path).is_file()
        and remembered_sha256(folder / item.path, cache_folder() / DIGESTS) == item.sha256
        for item in result.files
    )


def _artifact(variant: Variant, result: Result, store: Store, folder: Path, say: Say) -> Path:
    """Put one artifact below its model's folder, unless it lies there.

    Raises:
        LostResultError: one of its files is damaged.
    """
    inner = _inner(result)
    # What the exporter has called it, without the folder that stands for the model's.
    target = folder.joinpath(*inner.parts[1:])
    if _is_there(target, result, inner):
        return target
    with exclusive(target), atomic_folder(target) as fresh:
        fetch(store, _below(result, inner), fresh)
    say(f"{variant.planned.label:20} {target}")
    return target


def _inner(result: Result) -> PurePosixPath:
    """The artifact's folder among the result's files."""
    (manifest,) = (item.path for item in result.files if PurePosixPath(item.path).name == MANIFEST)
    return PurePosixPath(manifest).parent


def _below(result: Result, inner: PurePosixPath) -> Result:
    """The files of a folder, as they lie in it."""
    files = tuple(
        replace(item, path=str(PurePosixPath(item.path).relative_to(inner)))
        for item in result.files
        if PurePosixPath(item.path).is_relative_to(inner)
    )
    return replace(result, files=files)


def _is_there(target: Path, result: Result, inner: PurePosixPath) -> bool:
    wanted = next(item for item in result.files if item.path == str(inner / MANIFEST))
    try:
        artifact = open_artifact(target)
        if artifact.sha256 != wanted.sha256:
            return False
        artifact.check()
    except InputError:
        return False
    return True
