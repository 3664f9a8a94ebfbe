"""Whether artifacts are of the checkpoint's files as they are now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from edgeproof.artifact import Artifact
from edgeproof.checkpoints.weight_files import weight_files
from edgeproof.errors import InputError
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import OutputFile, input_records


def check_current(artifact: Artifact, inputs: tuple[OutputFile, ...]) -> None:
    """Refuse an artifact made from other inputs, or whose bytes are not the manifest's.

    Raises:
        InputError: what is wrong.
    """
    if artifact.manifest.model.inputs != inputs:
        raise InputError(f"{artifact.path}: made from other inputs; export it again")
    artifact.check()


def recorded_inputs(checkpoint: Path, artifacts: Sequence[Artifact]) -> tuple[OutputFile, ...]:
    """Hashes of the checkpoint's files that the artifacts name as their inputs.

    Raises:
        InputError: no artifacts, a file is gone, or a name leaves the checkpoint's folder.
    """
    if not artifacts:
        raise InputError("no artifacts to compare")
    # What most of them say: one that says something else is stale, not the others.
    stated = Counter(tuple(item.path for item in a.manifest.model.inputs) for a in artifacts)
    ((names, _),) = stated.most_common(1)
    for name in names:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\\" in name:
            raise InputError(
                f"{artifacts[0].path}: the input {name!r} leaves the checkpoint folder"
            )
        if not (checkpoint / name).is_file():
            raise InputError(f"{checkpoint / name}: missing; run `python -m export` again")
    loaded = {path.name for path in weight_files(checkpoint).paths}
    if loaded != {name for name in names if name.endswith(".safetensors")}:
        raise InputError(
            f"{checkpoint}: transformers loads {', '.join(sorted(loaded))} there, the artifacts"
            " were made from other files; export it again"
        )
    paths = [checkpoint / name for name in names]
    return input_records(paths, cache_folder() / "digests", checkpoint)
