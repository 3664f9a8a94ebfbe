"""The seam of all readers: a checkpoint's tensors → matrices that can be streamed as float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from export.sources.quantised.tensors import Tensors

Shape = tuple[int, int]  # [out, in]
# First and last + 1 of some outputs → float32 [their number, in].
Rows = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class Matrix:
    """A weight [out, in] that is stored as `parts`; `rows` are asked for from multiples of `step`.

    `step` is a power of two, at most 8: so many outputs may share a word.
    """

    shape: Shape
    parts: tuple[str, ...]
    rows: Rows
    step: int = 1


@dataclass(frozen=True)
class Reading:
    """What a reader found.

    Attributes:
        form: how the weights are stored, in words.
        matrices: the weights by their names as floats.
        unused: tensors on which no weight depends.
        notes: what users should know.
    """

    form: str
    matrices: Mapping[str, Matrix]
    unused: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


class Reader(Protocol):
    """Reads one way of storing quantised weights. Its name is in `registry`."""

    def read(
        self, settings: Mapping[str, Any], tensors: Tensors, shapes: Mapping[str, Shape]
    ) -> Reading:
        """Find and check all parts of all weights; headers and scales are read, no codes.

        Args:
            settings: `quantization_config` of config.json.
            tensors: what is stored.
            shapes: the weights that the model has, by name, as floats.

        Raises:
            InputError: a setting or a tensor is not as the method stores it.
        """


def stem(name: str) -> str:
    """What the names of a weight's parts begin with."""
    return name.removesuffix(".weight")
