"""A GGUF model in splits, `<stem>-00001-of-0000N.gguf`, read as one file.

Invariant: the splits are those of one model, all of them and in order, as `split.*` in each says.
Source: llama.cpp's src/llama-model-loader.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeproof.errors import InputError
from export.sources.gguf_container import GgufFile, GgufTensor
from export.sources.gguf_split_names import split_paths


class SplitGguf(GgufFile):
    """Several parts as one: the first one's metadata and the tensors of all.

    Raises:
        InputError: a part is of another model, or a tensor is missing or in two parts.
    """

    def __init__(self, parts: Sequence[GgufFile]) -> None:
        self.path, self.metadata = parts[0].path, parts[0].metadata
        self.tensors: dict[str, GgufTensor] = {}
        self._homes: dict[str, GgufFile] = {}
        for number, part in enumerate(parts):
            place = part.metadata.integer("split.no", 0), part.metadata.integer("split.count", 1)
            if place != (number, len(parts)):
                raise InputError(
                    f"{part.path}: it says that it is split {place[0] + 1} of {place[1]}; download"
                    " the splits again"
                )
            for name, tensor in part.tensors.items():
                if name in self.tensors:
                    raise InputError(f"{part.path}: tensor {name} is in another split too")
                self.tensors[name], self._homes[name] = tensor, part
        total = self.metadata.integer("split.tensors.count", len(self.tensors))
        if total != len(self.tensors):
            raise InputError(
                f"{self.path}: the splits hold {len(self.tensors)} tensors, not {total}; download"
                " them again"
            )

    def raw_rows(self, tensor: GgufTensor) -> np.ndarray:
        """As `GgufFile.raw_rows`."""
        return self._homes[tensor.name].raw_rows(tensor)

    def release(self, tensor: GgufTensor) -> None:
        """As `GgufFile.release`."""
        self._homes[tensor.name].release(tensor)


def open_gguf(path: Path) -> GgufFile:
    """A GGUF file with all its splits.

    Raises:
        InputError: a file is missing, malformed or does not belong to the others.
    """
    paths = split_paths(path)
    if len(paths) == 1:
        return GgufFile(path)
    return SplitGguf([GgufFile(part, split=True) for part in paths])
