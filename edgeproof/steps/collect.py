"""Put what steps have made into the user's folder: artifacts, and the record of what they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from edgeproof.artifact import MANIFEST, open_artifact
from edgeproof.artifact.run_record import ModelRun, PlannedArtifact, PlannedRecovery, RunRecord
from edgeproof.errors import InputError
from edgeproof.files.atomic import atomic_folder
from edgeproof.files.lock import exclusive
from edgeproof.files.once import once_folder
from edgeproof.steps.graph import Graph, RecoverySteps, Variant
from edgeproof.steps.results import Result, fetch, find
from edgeproof.steps.store import Store
from edgeproof.steps.work import Outcome

Say = Callable[[str], None]


def collect(
    graph: Graph,
    outcomes: Mapping[str, Outcome],
    store: Store,
    root: Path,
    gates: dict[str, dict[str, float]],
    say: Say,
) -> dict[str, str]:
    """Artifacts that were exported, below the root; of each its path there, by its step's key.

    `run.json` names them, and the recovered checkpoints, which are put into the cache, so that all
    other commands find them.
    """
    places: dict[str, str] = {}
    runs = []
    for model in graph.models:
        label, made = model.planned.label, model.planned.checkpoint.folder
        for variant in model.all_variants:
            path = _artifact(variant, outcomes, store, root / label, say)
            if path is not None:
                assert variant.export is not None
                places[variant.export.key] = path.relative_to(root).as_posix()
        planned = (
            PlannedArtifact(place, variant.planned.allow_degraded)
            for variant in model.variants
            if (place := _place(variant, places)) is not None
        )
        recovered = (_recovery(found, places, store) for found in model.recoveries)
        runs.append(ModelRun(label, made, tuple(planned), tuple(recovered)))
    RunRecord(tuple(runs), gates).save(root)
    return places


def _place(variant: Variant, places: Mapping[str, str]) -> str | None:
    return None if variant.export is None else places.get(variant.export.key)


def _recovery(found: RecoverySteps, places: Mapping[str, str], store: Store) -> PlannedRecovery:
    """What was made of a recovered checkpoint, which is put where it is kept."""
    recovery = found.planned.recovery
    paths = [_place(variant, places) for variant in found.variants]
    made = tuple(
        replace(variant, path=path)
        for variant, path in zip(recovery.variants, paths, strict=True)
        if path is not None
    )
    if not made:
        return recovery
    result = find(store, found.recover.key)
    if result is None:
        raise InputError(
            f"{store.url}: what was recovered ({recovery.goal.text}) is gone; run again"
        )
    once_folder(Path(found.folder), lambda folder: fetch(store, result, folder))
    return replace(recovery, variants=made, checkpoint=found.folder, exported=True)


def _artifact(
    variant: Variant, outcomes: Mapping[str, Outcome], store: Store, folder: Path, say: Say
) -> Path | None:
    """Put one artifact below its model's folder, unless it lies there; None: there is none."""
    if variant.export is None or outcomes[variant.export.key].failed is not None:
        return None
    result = find(store, variant.export.key)
    if result is None:
        raise InputError(f"{store.url}: {variant.planned.label} is gone; run again")
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
