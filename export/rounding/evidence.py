"""What a method may know of a tensor beside its values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np


class Need(Enum):
    """The evidence without which a method cannot round."""

    NOTHING = "nothing"
    IMPORTANCE = "an importance matrix"
    IMPORTANCE_IF_THERE = "nothing; an importance matrix is used where one is given"
    ON_GRID = "values that lie on the grid already"


@dataclass(frozen=True)
class Evidence:
    """Of one tensor: its `name`, for errors, and the importance of its input channels.

    `importance` is float32 [in], at least 0: the mean square of what enters each channel. None
    where nothing was measured, as for an embedding.
    """

    name: str
    importance: np.ndarray | None = None
