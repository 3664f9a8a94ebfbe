"""Text of the model's own, sampled batch by batch and kept, so that it is sampled once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edgeproof.files.atomic import write_atomic
from edgeproof.files.cache import cache_folder, usable
from runtimes.calibrate.decoder import Decoder
from runtimes.calibrate.sampling import row_bytes, sample
from runtimes.recover.stages import versions
from runtimes.recover.text import (
    CHUNK_TOKENS,
    Text,
    Windows,
    drawn,
    interleaved,
    parse_text,
    planned,
)
from runtimes.recover.vocabulary import Vocabulary

TEXT_VERSION = 2
WHOLE = "text.json"
TOGETHER = 64  # rows; more gain little
CACHE_BYTES = 1_000_000_000  # of keys and values
SEED, HELD_SEED = 1, 1_000_001


def chunk_size(vocabulary: Vocabulary) -> int:
    """Tokens of a chunk; a document is sampled with one more."""
    return min(CHUNK_TOKENS, vocabulary.context - 1)


def kept_text(digest: str, vocabulary: Vocabulary, tokens: int, seed: int) -> Path:
    """Where a checkpoint's own text is kept; all that decides it is in the name, but threads."""
    recipe = {
        "text": TEXT_VERSION,
        "checkpoint": digest,
        "tokens": tokens,
        "size": chunk_size(vocabulary),
        "seed": seed,
        "opening": vocabulary.opening,
        "separator": vocabulary.separator,
        "versions": versions(),
    }
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return usable(cache_folder() / "recover" / f"text-{key}")


def own_text(
    place: Path,
    vocabulary: Vocabulary,
    known: Windows,
    open_decoder: Callable[[], Decoder],
    tokens: int,
    seed: int,
    tell: Callable[[int, str], None],
) -> Text:
    """The text at `place`, sampled as far as it is not there, with none of the `known` windows.

    `tell` is told of tokens as they are sampled, and what is being done.
    """
    whole = place / WHOLE
    if whole.exists():
        return parse_text(whole.read_bytes(), str(whole), vocabulary.size)
    decoder, size = open_decoder(), chunk_size(vocabulary)
    together = max(1, min(TOGETHER, CACHE_BYTES // row_bytes(decoder, size + 1)))
    batches = planned(tokens, size, together, bool(vocabulary.opening), seed)
    parts = []
    for number, batch in enumerate(batches):
        kept = place / f"batch-{number}.json"
        if not kept.exists():
            what = f"sampling text, {number + 1} of {len(batches)}"
            sampler = partial(sample, decoder, advance=_telling(tell, what))
            chunks = drawn(batch, sampler, vocabulary, size, known)
            write_atomic(kept, Text(tuple(chunks)).content)
        parts.append(parse_text(kept.read_bytes(), str(kept), vocabulary.size).chunks)
    text = interleaved(batches, parts)
    write_atomic(whole, text.content)
    for number in range(len(batches)):
        (place / f"batch-{number}.json").unlink()
    return text


def _telling(tell: Callable[[int, str], None], what: str) -> Callable[[int], None]:
    return lambda tokens: tell(tokens, what)
