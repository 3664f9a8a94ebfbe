"""An artifact made of what was found in files, for the parity run: what a manifest says of ours."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from edgeproof.artifact import (
    Artifact,
    Foreign,
    Manifest,
    ModelIdentity,
    VariantRecord,
    Vocabulary,
    foreign_artifact,
    weights_record,
)
from edgeproof.checkpoints.json_object import read_object
from edgeproof.checkpoints.special_tokens import CONFIG
from edgeproof.checkpoints.tokenizer import TOKENIZER, token_ids, tokenizer_files
from edgeproof.checkpoints.weight_files import INDEX, SINGLE, weight_files
from edgeproof.errors import InputError
from edgeproof.families import read_config
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import OutputFile, input_records, remembered_sha256
from edgeproof.recovery import RECOVERY
from runtimes.audit.inspection import Inspection
from runtimes.contents import Origin
from runtimes.formats import dequantise
from runtimes.parity.blame import blame

LAYERS, FIRST = ".layers.", ".layers.0."
# Files of a checkpoint that exporters record too: what PyTorch said is found again by all of them.
BESIDE = ("README.md", RECOVERY, "edgeproof-merge.json")


@dataclass(frozen=True)
class Against:
    """What files are compared with: a checkpoint's folder, its name, and its files' hashes."""

    folder: Path
    name: str
    inputs: tuple[OutputFile, ...]


@dataclass(frozen=True)
class Described:
    """A file's artifact, and why its weights are not compared; None where they are."""

    artifact: Artifact
    unread: str | None


def against(folder: Path, name: str) -> Against:
    """Hash the files of a checkpoint that a comparison depends on.

    Raises:
        InputError: it has no config or weights.
    """
    weights = weight_files(folder)
    index = [] if weights.paths[0].name == SINGLE else [INDEX]
    names = (CONFIG, *tokenizer_files(folder), *BESIDE, *index)
    paths = [folder / item for item in names if (folder / item).is_file()]
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder / CONFIG}: missing")
    return Against(
        folder, name, input_records([*paths, *weights.paths], cache_folder() / "digests", folder)
    )


def describe(found: Inspection, original: Against) -> Described:
    """The artifact of inspected files; its weights are compared where a reader knows all of them.

    Raises:
        InputError: a file cannot be read.
    """
    outputs = hashed(found)
    digest = hashlib.sha256("\n".join(item.sha256 for item in outputs).encode()).hexdigest()
    manifest = Manifest(
        model=ModelIdentity(original.name, None, None, found.parameters, original.inputs),
        variant=VariantRecord(found.format, found.name, found.precision, {}, found.facts),
        recipe_digest=digest,
        tools={},
        outputs=outputs,
        weights=weights_record(found.stats, max(1, found.parameters)),
    )
    foreign = Foreign(
        found.subject, found.suffix, _vocabulary(found, original.folder), found.batches
    )
    artifact = foreign_artifact(found.folder, manifest, foreign)
    unread = _unread(artifact, original.folder)
    if unread is None:
        return Described(artifact, None)
    facts = replace(found.facts, traced=True)
    variant = replace(manifest.variant, facts=facts)
    return Described(
        foreign_artifact(found.folder, replace(manifest, variant=variant), foreign), unread
    )


def hashed(found: Inspection) -> tuple[OutputFile, ...]:
    """The files of what was inspected, each with its SHA-256, in order of names.

    Raises:
        InputError: one cannot be read.
    """
    return tuple(_hashed(found.folder, name) for name in sorted(found.files))


def _vocabulary(found: Inspection, checkpoint: Path) -> Vocabulary | None:
    """Both sizes where the file's is another; a token that it lacks is a fault of its own."""
    own, size = found.vocabulary, read_object(checkpoint / CONFIG).get("vocab_size")
    if own is None or not isinstance(size, int) or own == size:
        return None
    if own < size and _has_tokens(checkpoint, range(own, size)):
        return None
    return Vocabulary(own, size)


def _has_tokens(checkpoint: Path, ids: range) -> bool:
    """Whether its tokenizer has any of these; one that cannot be read may have."""
    origin = Origin(checkpoint)
    if not origin.has(TOKENIZER):
        return True
    known = chain(token_ids(origin.tokenizer).values(), origin.added.values())
    return any(index in ids for index in known)


def sha256_of_all(files: Sequence[OutputFile]) -> str:
    """Of one file its SHA-256; of several that of what `sha256sum` prints of them, by names."""
    if len(files) == 1:
        return files[0].sha256
    ordered = sorted(files, key=lambda item: item.path.encode())
    return hashlib.sha256("".join(map(_line, ordered)).encode()).hexdigest()


def _line(file: OutputFile) -> str:
    """As coreutils write it: a backslash begins a line whose name has characters escaped."""
    name = file.path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if name == file.path else chr(92)}{file.sha256}  {name}\n"


def _hashed(folder: Path, name: str) -> OutputFile:
    path = folder / name
    return OutputFile(
        name, path.stat().st_size, remembered_sha256(path, cache_folder() / "digests")
    )


def _unread(artifact: Artifact, checkpoint: Path) -> str | None:
    """Why a reader cannot tell the file's weights by the checkpoint's names; None if it can.

    A file that lacks a few of them is read, and told so; one that has hardly any was traced. What
    is read of the first layer is read of the others.
    """
    try:
        weights = dequantise(artifact)
        _, parameters = read_config(read_object(checkpoint / CONFIG))
        expected = {item.name for item in parameters}
        if len(expected & weights.keys()) * 2 < len(expected):
            strange = sorted(weights.keys() - expected)
            shown = f", such as {strange[0]}" if strange else ""
            return f"its weights have other names than the checkpoint's{shown}"
        for name in weights:
            if FIRST in name or LAYERS not in name:
                weights[name]
    except Exception as error:  # noqa: BLE001  a reader may raise anything over a hostile file
        return blame(error, foreign=True)
    return None
