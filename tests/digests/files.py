"""From an artifact's files to digests that do not change with edgeproof's version."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeproof.artifact import MANIFEST, DryRunWriter, HashedFile

# Hex digits kept of a SHA-256: 64 bits, ample against accidents, and a record that can be read.
DIGITS = 16
PIECE = 1 << 22
# Of `variant` in a manifest: what names it. Its recipe is known by the bytes that follow from it.
VARIANT_FACTS = ("format", "name", "precision")
# Fields 2 and 3 of an ONNX ModelProto, producer_name and producer_version, each with its length.
PRODUCER = re.compile(rb"(\x12\x09edgeproof)\x1a([\x01-\x7f])")

Digests = dict[str, str]  # file → digest


def normalised(name: str, data: bytes) -> bytes:
    """The bytes of a small file without edgeproof's version.

    It stands in two places. An ONNX graph has it as its producer's version, which is cut out. Of
    the manifest only what describes the files is kept: `model`, `weights`, the paths of `outputs`
    (their hashes change with the graphs') and the facts of `variant`; what is left out is its
    schema, the versions of libraries, the recipe, and the digest of it.
    """
    if name.endswith(".onnx"):
        (found,) = PRODUCER.finditer(data)
        return data[: found.end(1)] + data[found.end() + found[2][0] :]
    if name == MANIFEST:
        raw = json.loads(data)
        kept = {
            "model": raw["model"],
            "outputs": [item["path"] for item in raw["outputs"]],
            "variant": {key: raw["variant"][key] for key in VARIANT_FACTS},
            "weights": raw["weights"],
        }
        return json.dumps(kept, sort_keys=True).encode()
    return data


def digest(data: bytes) -> str:
    """The first digits of the data's SHA-256."""
    return hashlib.sha256(data).hexdigest()[:DIGITS]


def folder_digests(folder: Path) -> Digests:
    """The digest of every file of an artifact, by its path in it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _file_digest(path) for path in paths}


def _file_digest(path: Path) -> str:
    if path.name == MANIFEST or path.suffix == ".onnx":
        return digest(normalised(path.name, path.read_bytes()))
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            sha256.update(piece)
    return sha256.hexdigest()[:DIGITS]


class HashingWriter(DryRunWriter):
    """Takes an artifact's files as a real writer does, and keeps nothing but their digests."""

    dry = False

    @contextmanager
    def open(self, name: str) -> Iterator[HashedFile]:
        assert not name.endswith(".onnx"), "graphs are written in one piece"
        with super().open(name) as file:
            yield file

    def write(self, name: str, data: bytes) -> None:
        with super().open(name) as file:
            file.write(normalised(name, data))

    @property
    def digests(self) -> Digests:
        return {item.path: item.sha256[:DIGITS] for item in self._outputs}
