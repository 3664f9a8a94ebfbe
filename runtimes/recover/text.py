"""The calibration text: token ids in chunks, sampled from the model itself or given.

Two of three chunks begin as its chat template begins, up to the user's words and with the default
system prompt, since every chat begins so; the others as documents. What a document was sampled
from is dropped, so that first tokens differ, as they do in use. No chunk shares `WINDOW` tokens in
a row with the text that parity is measured on, outside the template's beginning.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproof.errors import InputError
from edgeproof.json_text import parse_json
from runtimes.parity.suite import Budget, built_in

if TYPE_CHECKING:
    from runtimes.recover.vocabulary import Vocabulary

CHUNK_TOKENS = 256
WINDOW = 32
SCHEMA = 1
DRAWS = 20  # of one batch, until nothing is shared

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Chunk:
    """A text of its own; its first `prefix` tokens are the chat template's."""

    ids: Ids
    prefix: int = 0


@dataclass(frozen=True)
class Text:
    """Chunks, in the order in which they are read."""

    chunks: tuple[Chunk, ...]

    @property
    def tokens(self) -> int:
        """All tokens, those of prefixes too."""
        return sum(len(chunk.ids) for chunk in self.chunks)

    @property
    def content(self) -> bytes:
        """What is stored, and read again by `--calibration`."""
        raw = {"schema": SCHEMA, "chunks": [asdict(chunk) for chunk in self.chunks]}
        return json.dumps(raw, separators=(",", ":")).encode()

    @property
    def sha256(self) -> str:
        """Of the content."""
        return hashlib.sha256(self.content).hexdigest()


def parse_text(content: bytes, source: str, vocabulary: int) -> Text:
    """What `Text.content` gave.

    Raises:
        InputError: it is something else, or has tokens that the model does not.
    """
    try:
        raw = parse_json(content)
        if raw["schema"] != SCHEMA:
            raise ValueError("another schema")
        text = Text(tuple(_chunk(item, vocabulary) for item in raw["chunks"]))
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{source}: not a calibration text of this model; give the calibration.json of a"
            " recovered checkpoint, or plain text"
        ) from None
    return text


def _chunk(raw: Any, vocabulary: int) -> Chunk:
    ids, prefix = tuple(raw["ids"]), raw["prefix"]
    if type(prefix) is not int or not 0 <= prefix <= len(ids) or len(ids) < 2:
        raise ValueError("prefix")
    if any(type(token) is not int or not 0 <= token < vocabulary for token in ids):
        raise ValueError("token")
    return Chunk(ids, prefix)


def read_text(path: Path, vocabulary: Vocabulary, known: Windows, tokens: int, size: int) -> Text:
    """`--calibration FILE`: a stored calibration text, or UTF-8 text, at most `tokens` of it.

    `known` are `evaluation_windows`.

    Raises:
        InputError: it cannot be read, is too short, or has evaluation text in it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if path.suffix == ".json":
        text = parse_text(content, str(path), vocabulary.size)
    else:
        try:
            words = content.decode("utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{path}: not UTF-8 text; convert it to UTF-8") from None
        text = _chunked(vocabulary, words, tokens, size)
    if text.tokens < WINDOW:
        raise InputError(f"{path}: too little text; give a file with some pages")
    shared = shared_windows(text.chunks, known)
    if shared:
        words = vocabulary.detokenize(shared[0])
        raise InputError(
            f"{path}: {' '.join(words.split())[:60]!r} is text that parity is measured on;"
            " figures would be too good: take it out"
        )
    return text


def _chunked(vocabulary: Vocabulary, words: str, tokens: int, size: int) -> Text:
    ids, opening = vocabulary.tokenize(words), vocabulary.opening[: size // 2]
    chunks: list[Chunk] = []
    used = total = 0
    while used < len(ids) and total < tokens:
        before = opening if len(chunks) % 3 < 2 else ()
        part = tuple(ids[used : used + min(size, tokens - total) - len(before)])
        if not part or len(before) + len(part) < 2:
            break
        used += len(part)
        total += len(before) + len(part)
        chunks.append(Chunk((*before, *part), len(before)))
    return Text(tuple(chunks))


Windows = frozenset[Ids]


def evaluation_windows(vocabulary: Vocabulary) -> Windows:
    """All runs of `WINDOW` tokens in the built-in text of every budget."""
    suite = built_in(Budget.FULL)
    texts = [prompt.text for prompt in suite.prompts if prompt.text is not None]
    texts += [item["content"] for prompt in suite.prompts for item in prompt.messages]
    return frozenset(window for text in texts for window in _windows(vocabulary.tokenize(text)))


def shared_windows(chunks: Sequence[Chunk], known: Windows) -> list[Ids]:
    """Windows of the chunks, beyond their prefixes, that are known."""
    return [w for chunk in chunks for w in _windows(chunk.ids[chunk.prefix :]) if w in known]


def _windows(ids: Sequence[int]) -> Iterator[Ids]:
    return (tuple(ids[start : start + WINDOW]) for start in range(len(ids) - WINDOW + 1))


@dataclass(frozen=True)
class Batch:
    """Rows that are sampled together: from the chat template's beginning, or as documents."""

    chat: bool
    rows: int
    seed: int


def planned(tokens: int, size: int, together: int, has_chat: bool, seed: int) -> list[Batch]:
    """Batches of at most `together` rows for a text of about so many tokens."""
    count = max(3, -(-tokens // size))
    documents = count // 3 if has_chat else count
    batches: list[Batch] = []
    for chat, rows in ((True, count - documents), (False, documents)):
        for start in range(0, rows, together):
            batches.append(Batch(chat, min(together, rows - start), seed + 1000 * len(batches)))
    return batches


# A prompt, rows, their length, a seed → token ids of the rows.
Sampler = Callable[[Sequence[int], int, int, int], list[list[int]]]


def drawn(
    batch: Batch, sampler: Sampler, vocabulary: Vocabulary, size: int, known: Windows
) -> list[Chunk]:
    """Sample a batch; again with another seed where evaluation text came out.

    Raises:
        InputError: it comes out each time.
    """
    opening = vocabulary.opening[: size // 2] if batch.chat else ()
    for attempt in range(DRAWS):
        if batch.chat:
            rows = sampler(opening, batch.rows, size, batch.seed + attempt)
            chunks = [Chunk(tuple(row), len(opening)) for row in rows]
        else:
            rows = sampler([vocabulary.separator], batch.rows, size + 1, batch.seed + attempt)
            chunks = [Chunk(tuple(row[1:])) for row in rows]
        if not shared_windows(chunks, known):
            return chunks
    raise InputError(
        "the model recites the text that parity is measured on; give another with --calibration"
    )


def interleaved(batches: Sequence[Batch], drawn_chunks: Sequence[Sequence[Chunk]]) -> Text:
    """Two chats, a document, and so on: any beginning of the text has both."""
    pairs = list(zip(batches, drawn_chunks, strict=True))
    chats = [chunk for batch, chunks in pairs if batch.chat for chunk in chunks]
    documents = [chunk for batch, chunks in pairs if not batch.chat for chunk in chunks]
    ordered: list[Chunk] = []
    while chats or documents:
        ordered += [*chats[:2], *documents[:1]]
        del chats[:2], documents[:1]
    return Text(tuple(ordered))
