"""How the artifacts below a root stand: compared, and still what an export would make?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeproof import __version__
from edgeproof.artifact import MANIFEST, Artifact, ModelIdentity, open_artifact
from edgeproof.artifact.manifest import SCHEMA
from edgeproof.artifact.run_record import RUN_RECORD, load_run_record
from edgeproof.errors import InputError
from edgeproof.files.atomic import TEMPORARY
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import OutputFile, file_sha256, input_records
from edgeproof.files.schema import NewerFileError
from edgeproof.verdicts import REPORT, Compared, Key, read_report
from export.checkpoint.folder import open_folder
from export.sources.bundled import superseded

NOT_COMPARED = "–"


@dataclass(frozen=True)
class State:
    """One artifact's folder.

    `verdict` is the last comparison's, `outdated` why that is not about these bytes, or why they
    cannot be looked at; `stale` is why an export would not keep the artifact, and may be removed.
    Both are None where all is well.
    """

    path: Path
    model: str
    name: str
    bytes: int
    verdict: str
    outdated: str | None
    stale: str | None


def states(root: Path, *, check: bool) -> list[State]:
    """Every artifact below a root, by path; `check` hashes their files, else sizes count.

    Raises:
        InputError: a report or a record that cannot be read.
    """
    inputs = _inputs(root)
    return [
        _state(folder, label, compared, inputs.get(label), check=check)
        for label, compared in sorted(_models(root).items())
        for folder in sorted(path.parent for path in (root / label).glob(f"*/*/{MANIFEST}"))
    ]


def left_overs(root: Path) -> list[Path]:
    """Folders of runs that were killed."""
    return sorted(path for path in root.glob(f"*/*/{TEMPORARY}*") if path.is_dir())


def target_of(left_over: Path) -> Path:
    """The artifact that a run was writing there; see `atomic_folder`."""
    return left_over.with_name(left_over.name.removeprefix(TEMPORARY).rpartition("-")[0])


def _models(root: Path) -> dict[str, dict[Key, Compared]]:
    labels = {path.parent.parent.parent.name for path in root.glob(f"*/*/*/{MANIFEST}")}
    return {label: dict(_compared(root / label / REPORT)) for label in labels}


def _compared(path: Path) -> Iterator[tuple[Key, Compared]]:
    if path.exists():
        for item in read_report(path).compared:
            yield item.key, item


def _inputs(root: Path) -> dict[str, tuple[OutputFile, ...]]:
    """Model → its checkpoint's files as they are now, where the last plan's run names it."""
    if not (root / RUN_RECORD).exists():
        return {}
    found = {}
    for run in load_run_record(root).models:
        if Path(run.checkpoint).is_dir():
            files = open_folder(Path(run.checkpoint)).input_files
            found[run.label] = input_records(files, cache_folder() / "digests")
    return found


def _state(
    folder: Path,
    label: str,
    compared: dict[Key, Compared],
    inputs: tuple[OutputFile, ...] | None,
    *,
    check: bool,
) -> State:
    try:
        artifact = open_artifact(folder)
    except NewerFileError as error:
        return State(folder, label, folder.name, 0, NOT_COMPARED, str(error), None)
    except InputError as error:
        return State(folder, label, folder.name, 0, NOT_COMPARED, None, str(error))
    variant = artifact.manifest.variant
    last = compared.get((variant.format, variant.name))
    outdated = None
    if last is not None and last.manifest != artifact.sha256:
        outdated = "changed since it was compared"
    return State(
        folder,
        label,
        f"{variant.format} {variant.name}",
        sum(item.bytes for item in artifact.manifest.outputs),
        last.verdict.value if last else NOT_COMPARED,
        outdated,
        _stale(artifact, inputs, check=check),
    )


def _stale(artifact: Artifact, inputs: tuple[OutputFile, ...] | None, *, check: bool) -> str | None:
    manifest = artifact.manifest
    other = _other_origin(manifest.model, inputs)
    if other is not None:
        return other
    version = manifest.tools.get("edgeproof")
    if version != __version__:
        return f"made by edgeproof {version}"
    if manifest.schema != SCHEMA.current:
        return f"its {MANIFEST} has schema {manifest.schema}, not {SCHEMA.current}"
    for item in manifest.outputs:
        path = artifact.path / item.path
        if not path.is_file() or path.stat().st_size != item.bytes:
            return f"{item.path} is missing or of another size"
        if check and file_sha256(path) != item.sha256:
            return f"{item.path} was changed"
    return None


def _other_origin(model: ModelIdentity, inputs: tuple[OutputFile, ...] | None) -> str | None:
    if inputs is not None and model.inputs != inputs:
        return "made from another checkpoint"
    if superseded(model.repo, model.revision):
        return "made from another revision of the bundled model"
    return None
