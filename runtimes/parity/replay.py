"""Logits of an artifact, or of its weights alone, against the reference's, document by document."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import ThreadpoolController

from edgeproof.errors import InputError
from runtimes.parity.divergence import PositionMetrics, compare, concatenate
from runtimes.parity.metrics import further
from runtimes.parity.reference import Reference

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime

# Rows that are compared at a time: the reference's logits of so many are in memory.
COMPARED_ROWS = 128

# Token ids [T] → logits float32 [.., V] of consecutive positions, T of them in all.
LogitBlocks = Callable[[Sequence[int]], Iterator[np.ndarray]]
# The metrics of the documents read so far, and what was broken: whether that is enough.
Enough = Callable[[Sequence[PositionMetrics], Sequence[str]], bool]


@dataclass(frozen=True)
class Replay:
    """Metrics of each document that was read, the reference's first ones, and what was broken.

    `seconds` is what the logits took, without the reference's and without comparing them.
    """

    metrics: list[PositionMetrics]
    failures: list[str]
    seconds: float


def never(metrics: Sequence[PositionMetrics], failures: Sequence[str]) -> bool:
    """No part of the text is enough: an `Enough`."""
    return False


def replay(
    reference: Reference,
    logits: LogitBlocks,
    threads: int,
    advance: Callable[[], None],
    enough: Enough = never,
) -> Replay:
    """Compare logits with the reference's on its documents, until that is `enough`.

    `advance` is called after each.

    Raises:
        InputError: they are of another vocabulary.
    """
    metrics: list[PositionMetrics] = []
    failures: list[str] = []
    seconds = 0.0
    with _Comparer(reference, threads) as comparer:
        for document, hidden in zip(reference.documents, reference.hidden, strict=True):
            parts: list[PositionMetrics] = []
            blocks = Stopwatch(logits(document.ids))
            start = 0
            for got in blocks:
                bad: np.ndarray = ~np.all(np.isfinite(got), axis=-1)
                if bad.any():
                    failures.append(
                        f"NaN or infinite logits at {bad.sum()} of {len(bad)} positions of"
                        f" {document.id}"
                    )
                    got = np.where(bad[:, None], 0.0, got)  # noqa: PLW2901
                for first in range(0, len(got), COMPARED_ROWS):
                    rows = slice(start + first, start + min(first + COMPARED_ROWS, len(got)))
                    ids = document.ids[rows.start : rows.stop + 1]
                    exported = got[first : first + COMPARED_ROWS]
                    parts.append(comparer.compare(hidden[rows], exported, ids))
                start += len(got)
                del got, exported  # a hundred megabytes, before the next ones are computed
            metrics.append(concatenate(parts))
            seconds += blocks.seconds
            advance()
            if enough(metrics, failures):
                break
        failures += [comparer.fault] if comparer.fault else []
    return Replay(metrics, failures, seconds)


class _Comparer(contextlib.ExitStack):
    """Compares in threads of its own, while it is entered.

    OpenBLAS's would go on spinning for a while after each product, and so take the cores from the
    runtime.
    """

    def __init__(self, reference: Reference, threads: int) -> None:
        super().__init__()
        openblas = ThreadpoolController().select(internal_api="openblas")
        self.enter_context(openblas.limit(limits=1))
        self._pool = self.enter_context(ThreadPoolExecutor(threads))
        self._threads, self._head, self._beyond = threads, reference.head, reference.beyond
        self._positions = self._elsewhere = 0
        self._further = further()
        # Kept: new memory costs as much as the product.
        self._expected = np.empty((COMPARED_ROWS, len(reference.head)), np.float32)

    @property
    def fault(self) -> str | None:
        """In words, where the original's likeliest token is none of the export's."""
        if not self._elsewhere:
            return None
        return (
            f"at {self._elsewhere} of {self._positions} positions the original's likeliest token is"
            " one for which the file has no row"
        )

    def compare(self, hidden: np.ndarray, got: np.ndarray, ids: Sequence[int]) -> PositionMetrics:
        """Logits [n, V] against the reference's, hidden [n, H] · headᵀ; n is COMPARED_ROWS at most.

        Raises:
            InputError: they are of another vocabulary.
        """
        width = len(self._head)
        if got.shape[-1] != width:
            raise InputError(f"logits of {got.shape[-1]} tokens, the reference's are of {width}")
        expected = self._expected[: len(got)]

        def multiply(tokens: slice) -> None:
            np.matmul(hidden, self._head[tokens].T, out=expected[:, tokens])

        def compared(rows: slice) -> PositionMetrics:
            read = ids[rows.start : rows.stop + 1]
            return compare(expected[rows], got[rows], read, self._further)

        deque(self._pool.map(multiply, self._shares(width)), maxlen=0)
        self._positions += len(got)
        if self._beyond is not None:
            further = (hidden @ self._beyond.T).max(-1) > expected.max(-1)
            self._elsewhere += int(further.sum())
        return concatenate([*self._pool.map(compared, self._shares(len(got)))])

    def _shares(self, count: int) -> list[slice]:
        bounds = np.linspace(0, count, min(self._threads, count) + 1).astype(int).tolist()
        return [*map(slice, bounds, bounds[1:])]


def replay_weights(
    model: TorchRuntime,
    weights: Mapping[str, np.ndarray],
    reference: Reference,
    threads: int,
    enough: Enough = never,
) -> list[PositionMetrics]:
    """What an artifact's weights give in PyTorch on the reference's documents, until `enough`.

    Raises:
        InputError: a missing, unknown, misshapen or damaged tensor.
    """
    width = len(reference.head)
    with model.running(weights):
        logits = model.logits_of([document.ids for document in reference.documents])

        def common(ids: Sequence[int]) -> Iterator[np.ndarray]:
            return (rows[:, :width] for rows in logits(ids))

        given = logits if reference.beyond is None else common
        return replay(reference, given, threads, lambda: None, enough).metrics


class Stopwatch:
    """An iterator that counts the seconds its source takes."""

    def __init__(self, source: Iterator[np.ndarray]) -> None:
        self._source = source
        self.seconds = 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        """The source's items, none of them kept."""
        while True:
            begin = time.perf_counter()
            item = next(self._source, None)
            self.seconds += time.perf_counter() - begin
            if item is None:
                return
            yield item
            del item
