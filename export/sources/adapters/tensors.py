"""adapter_model.safetensors: an adapter's tensors by the module of the base that they change.

Names: https://github.com/huggingface/peft, `utils/save_and_load.py`. A module's name has PEFT's
prefix before it, and may have the wrappers in it that a layer got while it was trained.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from edgeproof.display import printable
from edgeproof.errors import InputError
from export.checkpoint.safetensors_file import SafetensorsFile

WEIGHTS, PICKLED = "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
WRAPPERS = {"base_layer", "modules_to_save", "token_adapter"}
ORIGINAL = "original_module"  # what training left as it was; not used with the adapter
BLOCK_ELEMENTS = 1 << 20  # as large as those of checkpoints


class Part(Enum):
    """What a tensor is to its module; the value is a pattern of what follows the module's name."""

    A = r"lora_A\.weight"
    B = r"lora_B\.weight"
    B_BIAS = r"lora_B\.bias"
    EMBEDDING_A = r"lora_embedding_A"
    EMBEDDING_B = r"lora_embedding_B"
    MAGNITUDE = r"lora_magnitude_vector(\.weight)?"
    ROWS = r"trainable_tokens_delta"
    WEIGHT = r"weight"
    BIAS = r"bias"


LOW_RANK = (Part.A, Part.B, Part.EMBEDDING_A, Part.EMBEDDING_B, Part.MAGNITUDE, Part.B_BIAS)
PARTS = {part: re.compile(rf"(.+)\.{part.value}") for part in Part}


@dataclass(frozen=True)
class Stored:
    """A tensor in a file."""

    file: SafetensorsFile
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """As stored."""
        return self.file.entries[self.name].shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32, float16 or bfloat16."""
        return self.file.entries[self.name].dtype

    @property
    def where(self) -> str:
        """The file and the tensor, for messages."""
        return f"{self.file.path}: tensor {self.name}"

    def values(self) -> np.ndarray:
        """All of a small tensor as float32.

        Raises:
            InputError: a value is NaN or infinite.
        """
        found = self.file.tensor(self.name).astype(np.float32)
        self._check(found)
        self.file.release(self.name)
        return found

    def blocks(self) -> Iterator[np.ndarray]:
        """Blocks of rows in the stored dtype; pages are given back behind the reader.

        Raises:
            InputError: a value is NaN or infinite.
        """
        array = self.file.tensor(self.name)
        row = max(1, array.size // max(1, len(array)))
        step = max(1, BLOCK_ELEMENTS // row)
        for start in range(0, len(array), step):
            block = array[start : start + step]
            self._check(block)
            yield block
            self.file.release(
                self.name, start * row * array.itemsize, (start + len(block)) * row * array.itemsize
            )

    def _check(self, values: np.ndarray) -> None:
        if not np.isfinite(values).all():
            raise InputError(f"{self.where} has a NaN or infinite value; the adapter is damaged")


Module = dict[Part, Stored]


def read_tensors(folder: Path) -> dict[str, Module]:
    """The tensors of the adapter in a folder, by module and part. Reads the header only.

    Raises:
        InputError: no file, a pickled or a damaged one, or two tensors of one meaning.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        if (folder / PICKLED).exists():
            raise InputError(
                f"{folder / PICKLED}: pickled weights are never loaded, they can run code; save the"
                " adapter again with safe_serialization=True"
            )
        raise InputError(f"{path}: missing; the adapter has no weights")
    file = SafetensorsFile(path)
    modules: dict[str, Module] = {}
    for name in file.entries:
        if not name.isprintable():
            raise InputError(f"{path}: {printable(name)} is no tensor's name; the file is damaged")
        stored = Stored(file, name)
        found = _placed(stored)
        if found is None:
            continue
        module, part = found
        known = modules.setdefault(module, {})
        if part in known:
            raise InputError(f"{stored.where}: {known[part].name} is the same tensor's name")
        known[part] = stored
    if not modules:
        raise InputError(f"{path}: has no tensors")
    return modules


def _placed(stored: Stored) -> tuple[str, Part] | None:
    """Module and part; None for what is not used."""
    for part, pattern in PARTS.items():
        match = pattern.fullmatch(stored.name)
        if match is not None:
            steps = match[1].removeprefix(PREFIX).split(".")
            if ORIGINAL in steps:
                return None
            return ".".join(step for step in steps if step not in WRAPPERS), part
    raise InputError(f"{stored.where} is nothing that a LoRA has")
