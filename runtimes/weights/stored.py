"""Parameters that are read when they are asked for: never a whole model in float32 in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from edgeproof.errors import DamagedExportError
from runtimes.weights.fused import Heads, parts, split

# Rows that are dequantised together: that takes several times their own memory.
ROWS = 2048
# What reading a damaged tensor may raise.
DAMAGE = (OSError, ValueError, KeyError, NotImplementedError)


class StoredWeights(Mapping[str, np.ndarray]):
    """Parameters as float32 by their Hugging Face names, dequantised anew at each access.

    `sources` reads each stored tensor; one that holds fused projections gives several parameters,
    and the last one read is kept for the next of them. `path` is named in errors.

    Looking up a tensor raises InputError where it is damaged.
    """

    def __init__(
        self, sources: Mapping[str, Callable[[], np.ndarray]], heads: Heads | None, path: Path
    ) -> None:
        self._sources, self._heads, self._path = sources, heads, path
        self._owners = {part: name for name in sources for part in parts(name)}
        self._read: tuple[str, dict[str, np.ndarray]] = ("", {})

    def __getitem__(self, name: str) -> np.ndarray:
        owner = self._owners[name]
        if self._read[0] != owner:
            self._read = ("", {})  # free the last one first
            try:
                values = np.ascontiguousarray(self._sources[owner](), np.float32)
            except DAMAGE as error:
                raise DamagedExportError(
                    f"{self._path}: {owner} cannot be read ({error})"
                ) from None
            found = dict(split(owner, values, self._heads))
            if len(found) == 1:
                return values
            self._read = (owner, found)
        return self._read[1][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._owners)

    def __len__(self) -> int:
        return len(self._owners)


def by_rows(rows: int, read: Callable[[slice], np.ndarray]) -> np.ndarray:
    """What `read` gives of `rows` rows, some at a time: float32 [rows, …]."""
    first = np.asarray(read(slice(0, ROWS)), np.float32)
    if rows <= ROWS:
        return first
    result = np.empty((rows, *first.shape[1:]), np.float32)
    result[:ROWS] = first
    for start in range(ROWS, rows, ROWS):
        result[start : start + ROWS] = read(slice(start, start + ROWS))
    return result
