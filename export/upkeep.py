"""How the artifacts below a root stand: compared, and still what an export would make?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeproof.artifact import MANIFEST, Artifact, ModelIdentity, open_artifact
from edgeproof.artifact.run_record import RUN_RECORD, load_run_record
from edgeproof.errors import InputError
from edgeproof.files.atomic import TEMPORARY
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import OutputFile, file_sha256, input_records, remembered_sha256
from edgeproof.files.schema import NewerFileError
from edgeproof.verdicts import REPORT, Compared, Key, read_report
from export.checkpoint.folder import open_folder
from export.remade import CannotTell, made_otherwise
from export.sources.bundled import superseded

NOT_COMPARED = "–"
NEWER = "a newer edgeproof wrote it"
DIGESTS = "digests"  # folder of the cache
# A checkpoint's files as they are now, or why they are not known.
Inputs = tuple[OutputFile, ...] | str


@dataclass(frozen=True)
class State:
    """One artifact's folder.

    `verdict` is the last comparison's, `outdated` why that is not about these bytes, or why they
    cannot be looked at; `stale` is why an export would not keep the artifact, and may be removed;
    `unknown` why that cannot be told. All are None where all is well.
    """

    path: Path
    model: str
    name: str
    bytes: int
    verdict: str
    outdated: str | None
    stale: str | None
    unknown: str | None

    @property
    def up_to_date(self) -> bool:
        """Whether an export of the same variant would keep it as it is."""
        return self.stale is None and self.unknown is None


def states(root: Path, *, check: bool) -> list[State]:
    """Every artifact below a root, by path.

    `check` reads every byte of their files; without it a file is hashed again only if its size or
    time has changed.

    Raises:
        InputError: a report or a record that cannot be read.
    """
    inputs = _inputs(root)
    unknown: Inputs = f"{RUN_RECORD} does not name its checkpoint"
    return [
        _state(folder, label, compared, inputs.get(label, unknown), check=check)
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


def _inputs(root: Path) -> dict[str, Inputs]:
    """Model → its checkpoint's files as they are now, where the last plan's run names it."""
    if not (root / RUN_RECORD).exists():
        return {}
    return {run.label: _files(Path(run.checkpoint)) for run in load_run_record(root).models}


def _files(checkpoint: Path) -> Inputs:
    if not checkpoint.is_dir():
        return f"its checkpoint {checkpoint} is gone"
    try:
        return input_records(open_folder(checkpoint).input_files, cache_folder() / DIGESTS)
    except (InputError, OSError) as error:
        return f"its checkpoint cannot be read: {error}"


def _state(
    folder: Path,
    label: str,
    compared: dict[Key, Compared],
    inputs: Inputs,
    *,
    check: bool,
) -> State:
    try:
        artifact = open_artifact(folder)
    except NewerFileError as error:
        return State(folder, label, folder.name, 0, NOT_COMPARED, str(error), None, NEWER)
    except InputError as error:
        return State(folder, label, folder.name, 0, NOT_COMPARED, None, str(error), None)
    variant = artifact.manifest.variant
    last = compared.get((variant.format, variant.name))
    outdated = None
    if last is not None and last.manifest != artifact.sha256:
        outdated = "changed since it was compared"
    stale, unknown = _stale(artifact, inputs, check=check)
    return State(
        folder,
        label,
        f"{variant.format} {variant.name}",
        sum(item.bytes for item in artifact.manifest.outputs),
        last.verdict.value if last else NOT_COMPARED,
        outdated,
        stale,
        unknown,
    )


def _stale(artifact: Artifact, inputs: Inputs, *, check: bool) -> tuple[str | None, str | None]:
    """Why an export would not keep it, and why that cannot be told."""
    manifest, unknown = artifact.manifest, None
    if isinstance(inputs, str):
        unknown = inputs
    try:
        otherwise = _other_origin(manifest.model, inputs) or made_otherwise(manifest)
        if otherwise is not None:
            return otherwise, None
    except CannotTell as error:
        unknown = str(error)
    return _damage(artifact, check=check), unknown


def _damage(artifact: Artifact, *, check: bool) -> str | None:
    """What is wrong with its files."""
    for item in artifact.manifest.outputs:
        path = artifact.path / item.path
        if not path.is_file() or path.stat().st_size != item.bytes:
            return f"{item.path} is missing or of another size"
        digest = file_sha256(path) if check else remembered_sha256(path, cache_folder() / DIGESTS)
        if digest != item.sha256:
            return f"{item.path} was changed"
    return None


def _other_origin(model: ModelIdentity, inputs: Inputs) -> str | None:
    if not isinstance(inputs, str) and model.inputs != inputs:
        return "made from another checkpoint"
    if superseded(model.repo, model.revision):
        return "made from another revision of the bundled model"
    return None
