"""What begins late: a window, tables that end, an angle that turns, far from a text's beginning.

One text reaches as far as a context does, or as users' chats usually do, and ends with its own
beginning once more. A model that sees it whole copies that with confidence; one that does not
guesses, so that only the last positions need logits, and few of them tell.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeproof.files.cache import cache_folder, keep
from edgeproof.files.hashing import OutputFile
from edgeproof.files.once import once
from runtimes.parity.divergence import compare
from runtimes.parity.fields import AnyFloat
from runtimes.parity.original_code import original_code
from runtimes.parity.suite import long_text
from runtimes.protocol import Runtime

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime

PROBES = "probes"  # of the cache
# Tokens that the end repeats of the beginning, and of how many of these logits are compared: the
# first ones only show which part it is. Shorter contexts have a third of themselves.
REPEATED, SHORT = 320, 3
COMPARED = 4 / 5
# Rounding costs there about what it costs elsewhere, and less where the model is sure of a copy;
# a model that cannot look back loses whole nats. Below the floor nothing is wrong.
TIMES, FLOOR = 4.0, 0.01
ROWS = 128  # compared at a time


@dataclass(frozen=True)
class Probe:
    """Token ids, and the reference's hidden states from position `first` on: float32 [.., H].

    A file without the model's sliding windows may end at `windowless` positions.
    """

    ids: tuple[int, ...]
    first: int
    hidden: np.ndarray
    windowless: int = 0


@dataclass(frozen=True)
class LongRange:
    """The end of a long text, which repeats its beginning."""

    tokens: int
    """Of the text."""
    positions: int
    """How many of the last ones were compared."""
    kl: AnyFloat
    """Their mean KL from the reference, nats."""
    limit: AnyFloat
    """Above it something begins late; 4 times the mean KL of the other text, at least 0.01."""

    @property
    def fault(self) -> str | None:
        """What is wrong, in words."""
        if not self.positions:
            return f"long range: a text of {self.tokens} tokens is longer than the file's context"
        if self.kl <= self.limit:
            return None
        return (
            f"long range: the last {self.positions} of {self.tokens} tokens differ by KL"
            f" {self.kl:.3g}, more than {self.limit:.3g}"
            f" ({TIMES:g} times the other text's, at least {FLOOR})"
        )


def load_probe(runtime: TorchRuntime, tokens: int, inputs: tuple[OutputFile, ...]) -> Probe | None:
    """The reference on a text of so many tokens, or of its context; None where none are asked for.

    Cached by all that it depends on.
    """
    length = min(tokens, runtime.context)
    repeated = min(REPEATED, length // SHORT)
    if repeated < 1:
        return None
    ids = probe_ids(runtime.tokenize(long_text()), length, repeated)
    first = length - max(1, round(COMPARED * repeated))
    path = probe_file(runtime, ids, first, inputs)

    def make() -> np.ndarray:
        hidden: np.ndarray = runtime.hidden(ids)[first:].copy()
        buffer = io.BytesIO()
        np.savez(buffer, hidden=hidden)
        keep(path, buffer.getvalue())
        return hidden

    hidden = once(path, lambda: _read(path), make)
    return Probe(ids, first, hidden, runtime.windowless)


def probe_file(
    runtime: TorchRuntime, ids: tuple[int, ...], first: int, inputs: tuple[OutputFile, ...]
) -> Path:
    """Where the reference on such a text lies in the cache."""
    recipe = {
        "code": original_code(),
        "ids": ids,
        "first": first,
        "runtime": runtime.version,
        "inputs": [[item.path, item.sha256] for item in inputs],
    }
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return cache_folder() / PROBES / f"{key}.npz"


def probe_ids(text: Sequence[int], length: int, repeated: int) -> tuple[int, ...]:
    """The text's first tokens, and at the end as many of them as are `repeated`."""
    begin = tuple(islice(cycle(text), length - repeated))
    return tuple(islice(chain(begin, begin), length))


def measure_long_range(
    runtime: Runtime, probe: Probe, head: np.ndarray, usual_kl: float
) -> LongRange | None:
    """Compare the end of the probe; `usual_kl` is the mean KL of the other text, in nats.

    None where the file rightly ends before it.
    """
    if runtime.context == probe.windowless < len(probe.ids):
        return None
    limit = max(FLOOR, TIMES * usual_kl)
    if runtime.context < len(probe.ids):
        return LongRange(len(probe.ids), 0, float("inf"), limit)
    divergences, start = [], 0
    for got in runtime.logit_blocks(probe.ids, probe.first):
        for begin in range(0, len(got), ROWS):
            rows = got[begin : begin + ROWS]
            want = probe.hidden[start : start + len(rows)] @ head.T
            ids = probe.ids[probe.first + start : probe.first + start + len(rows) + 1]
            divergences.append(compare(want, rows, ids).kl)
            start += len(rows)
    kl = np.concatenate(divergences)
    return LongRange(len(probe.ids), len(kl), float(kl.mean()), limit)


def _read(path: Path) -> np.ndarray | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            hidden: np.ndarray = stored["hidden"]
            return hidden
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None  # a missing or damaged file is made again
