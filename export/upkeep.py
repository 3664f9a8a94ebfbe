"""How the artifacts below a root stand: compared, and still what an export would make?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgeproof.artifact import MANIFEST, Artifact, ModelIdentity, open_artifact
from edgeproof.artifact.run_record import (
    RUN_RECORD,
    ModelRun,
    PlannedRecovery,
    load_run_record,
)
from edgeproof.errors import InputError
from edgeproof.files.atomic import TEMPORARY
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import OutputFile, file_sha256, input_records, remembered_sha256
from edgeproof.files.own import UnreadableFileError
from edgeproof.files.schema import NewerFileError
from edgeproof.files.space import stored_bytes
from edgeproof.recovery import checkpoint_digest, read_recovery
from edgeproof.verdicts import REPORT, Compared, Key, read_report
from export.checkpoint.folder import open_folder
from export.remade import CannotTell, made_otherwise
from export.sources.bundled import superseded

NOT_COMPARED = "–"
NEWER = "a newer edgeproof wrote it"
NOT_MADE = "its recovered checkpoint is not made yet (python -m runtimes.parity --recover)"
DIGESTS = "digests"  # folder of the cache
DEPTH = 3  # model, format, variant
MOMENT = 60.0  # seconds
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

    What of it cannot be read is in the list, and hides nothing else.
    """
    inputs = _inputs(root)
    compared = _Reports(root)
    found = []
    for folder, closed in _folders(root, 0):
        label, *rest = folder.relative_to(root).parts or (str(root),)
        name = " ".join(rest) or "–"
        if closed is not None:
            size = stored_bytes(folder)
            found.append(State(folder, label, name, size, NOT_COMPARED, None, None, closed))
        else:
            now = inputs.of(folder, label)
            found.append(_state(folder, label, name, compared.of(label), now, check=check))
    return found


def unmade(root: Path) -> list[State]:
    """The recovered variants that the last plan asks for and that are not there, where it tells."""
    try:
        models = _recorded(root)
    except InputError:
        return []  # `states` says so of each artifact
    return [
        State(
            root / variant.path,
            run.label,
            f"{variant.format} {variant.dtype}",
            0,
            NOT_COMPARED,
            None,
            None,
            NOT_MADE,
        )
        for run in models
        for recovery in run.recovered
        for variant in recovery.variants
        if not (root / variant.path / MANIFEST).exists()
    ]


def left_overs(root: Path) -> list[Path]:
    """Folders and files of runs that were killed.

    A file is written in a moment, so that one which is new may be of a run that goes on.
    """
    found = [path for depth in range(DEPTH) for path in root.glob(f"{'*/' * depth}{TEMPORARY}*")]
    return sorted(path for path in found if path.is_dir() or _old(path))


def target_of(left_over: Path) -> Path:
    """The artifact that a run was writing there, see `atomic_folder`; for a file itself."""
    name = left_over.name.removeprefix(TEMPORARY).rpartition("-")[0]
    return left_over.with_name(name or left_over.name)


def _old(path: Path) -> bool:
    try:
        return time.time() - path.lstat().st_mtime > MOMENT
    except OSError:  # it is gone
        return False


def _folders(folder: Path, depth: int) -> Iterator[tuple[Path, str | None]]:
    """Folders of artifacts, by path, and those that cannot be looked into with why."""
    try:
        items = sorted(folder.iterdir())
        below = [item for item in items if item.is_dir() and not item.name.startswith(TEMPORARY)]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        yield folder, f"cannot be read ({error.strerror})"
        return
    if depth < DEPTH:
        for item in below:
            yield from _folders(item, depth + 1)
    elif any(item.name == MANIFEST for item in items):
        yield folder, None


@dataclass(frozen=True)
class _Report:
    """What a model's last comparison found, or why it cannot be read."""

    compared: Mapping[Key, Compared]
    unreadable: str | None = None


class _Reports:
    """The reports of models, each read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read: dict[str, _Report] = {}

    def of(self, label: str) -> _Report:
        if label not in self._read:
            self._read[label] = _report(self._root / label / REPORT)
        return self._read[label]


def _report(path: Path) -> _Report:
    if not os.path.lexists(path):
        return _Report({})
    try:
        return _Report({item.key: item for item in read_report(path).compared})
    except InputError as error:
        return _Report({}, str(error))


@dataclass(frozen=True)
class _Known:
    """Checkpoints' files as they are now, as far as the last plan's run names them."""

    models: Mapping[str, Inputs]
    recovered: Mapping[Path, Inputs]
    otherwise: Inputs

    def of(self, folder: Path, label: str) -> Inputs:
        """Those of what an artifact's folder was made from."""
        return self.recovered.get(folder, self.models.get(label, self.otherwise))


def _inputs(root: Path) -> _Known:
    try:
        models = _recorded(root)
    except InputError as error:
        return _Known({}, {}, str(error))
    recovered = {
        root / variant.path: inputs
        for run in models
        for recovery in run.recovered
        for inputs in [_recovered_files(recovery, Path(run.checkpoint))]
        for variant in recovery.variants
    }
    known = {run.label: _files(Path(run.checkpoint)) for run in models}
    return _Known(known, recovered, f"{RUN_RECORD} does not name its checkpoint")


def _recorded(root: Path) -> tuple[ModelRun, ...]:
    return load_run_record(root).models if os.path.lexists(root / RUN_RECORD) else ()


def _recovered_files(recovery: PlannedRecovery, original: Path) -> Inputs:
    if recovery.checkpoint is None:
        return NOT_MADE
    checkpoint = Path(recovery.checkpoint)
    inputs = _files(checkpoint)
    if isinstance(inputs, str):
        return inputs
    try:
        record = read_recovery(checkpoint)
        made_from = checkpoint_digest(original)
    except (InputError, OSError) as error:
        return f"what it was recovered from cannot be read: {error}"
    # No files: an export would take another checkpoint.
    return inputs if record is not None and record.original.digest == made_from else ()


def _files(checkpoint: Path) -> Inputs:
    try:
        if not checkpoint.is_dir():
            return f"its checkpoint {checkpoint} is gone"
        found = open_folder(checkpoint)
        return input_records(found.input_files, cache_folder() / DIGESTS, found.path)
    except (InputError, OSError) as error:
        return f"its checkpoint cannot be read: {error}"


def _state(
    folder: Path,
    label: str,
    name: str,
    report: _Report,
    inputs: Inputs,
    *,
    check: bool,
) -> State:
    """An artifact's; `name` is that of its place, for one that does not tell its own."""
    unread = partial(State, folder, label, name, verdict=NOT_COMPARED)
    try:
        artifact = open_artifact(folder)
    except NewerFileError as error:
        size = stored_bytes(folder)
        return unread(bytes=size, outdated=str(error), stale=None, unknown=NEWER)
    except UnreadableFileError as error:
        size = stored_bytes(folder)
        return unread(bytes=size, outdated=None, stale=None, unknown=str(error))
    except InputError as error:
        size = stored_bytes(folder)
        return unread(bytes=size, outdated=None, stale=str(error), unknown=None)
    variant = artifact.manifest.variant
    last = report.compared.get((variant.format, variant.name))
    outdated = report.unreadable
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
    try:
        return _damage(artifact, check=check), unknown
    except (InputError, OSError) as error:
        return None, str(error)


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
