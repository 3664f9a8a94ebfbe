"""The text that is trained on, in an order that seeds decide: first the calibration text.

Each text is read `READINGS` times, in another order each time; then the original writes the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from edgeproof.files.atomic import write_atomic
from runtimes.calibrate.decoder import Decoder
from runtimes.calibrate.sampling import row_bytes, sample
from runtimes.recover.distill.wish import Pace
from runtimes.recover.own_text import chunk_size
from runtimes.recover.text import (
    Chunk,
    Text,
    Windows,
    drawn,
    interleaved,
    parse_text,
    planned,
)
from runtimes.recover.vocabulary import Vocabulary

READINGS = 4
# Of the texts and their orders; those of calibration, held-out and validation text are others.
TEXT_SEED = 3_000_001
SEEDS_OF_A_TEXT = 100_000


@dataclass(frozen=True)
class Place:
    """What is read next: a text, how often it was read, and how many of its chunks since."""

    text: int = 0
    reading: int = 0
    chunk: int = 0


class Supply:
    """The texts of one distillation, as files of a folder."""

    def __init__(
        self,
        folder: Path,
        first: Text,
        vocabulary: Vocabulary,
        known: Windows,
        teacher: Decoder,
        pace: Pace,
    ) -> None:
        self._folder, self._first = folder, first
        self._vocabulary, self._known = vocabulary, known
        self._teacher, self._pace = teacher, pace
        self._opened: tuple[int, Text] = 0, first

    def take(
        self, place: Place, count: int, advance: Callable[[int], None]
    ) -> tuple[list[Chunk], Place]:
        """At most `count` chunks from a place on, and the place after them.

        `advance` counts tokens while a text is sampled, and may raise to end that.
        """
        text = self.text(place.text, advance)
        draw = torch.Generator().manual_seed(self._seed(place.text) + place.reading)
        order = torch.randperm(len(text.chunks), generator=draw).tolist()
        taken = order[place.chunk : place.chunk + count]
        after = replace(place, chunk=place.chunk + len(taken))
        if after.chunk == len(order):
            after = Place(place.text, place.reading + 1)
        if after.reading == READINGS:
            after = Place(place.text + 1)
        return [text.chunks[number] for number in taken], after

    def text(self, number: int, advance: Callable[[int], None]) -> Text:
        """A text; sampled if no run has done that."""
        if self._opened[0] != number:
            self._opened = number, self._first if number == 0 else self._own(number, advance)
        return self._opened[1]

    def _own(self, number: int, advance: Callable[[int], None]) -> Text:
        path = self._folder / f"text-{number}.json"
        if path.exists():
            return parse_text(path.read_bytes(), str(path), self._vocabulary.size)
        size = chunk_size(self._vocabulary)
        room = self._pace.cache_bytes // row_bytes(self._teacher, size + 1)
        rows = max(1, min(self._pace.sampled_rows, room))
        batches = planned(
            self._pace.sampled_rows * size,
            size,
            rows,
            bool(self._vocabulary.opening),
            self._seed(number),
        )
        sampler = partial(sample, self._teacher, advance=advance)
        parts = [drawn(batch, sampler, self._vocabulary, size, self._known) for batch in batches]
        text = interleaved(batches, parts)
        write_atomic(path, text.content)
        return text

    def _seed(self, number: int) -> int:
        return TEXT_SEED + SEEDS_OF_A_TEXT * number


def of_equal_length(chunks: Sequence[Chunk], most: int) -> list[list[Chunk]]:
    """All chunks, at most so many together, those together of equal length."""
    groups: list[list[Chunk]] = []
    for chunk in sorted(chunks, key=lambda chunk: len(chunk.ids)):
        last = groups[-1] if groups else []
        if last and len(last) < most and len(last[0].ids) == len(chunk.ids):
            last.append(chunk)
        else:
            groups.append([chunk])
    return groups
