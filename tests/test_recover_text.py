"""The calibration text: how chats begin, documents that begin anyhow, nothing that is judged on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from edgeproof.errors import InputError
from runtimes.parity.suite import Budget, built_in
from runtimes.recover.text import (
    WINDOW,
    Batch,
    Chunk,
    Text,
    drawn,
    evaluation_windows,
    interleaved,
    parse_text,
    planned,
    read_text,
    shared_windows,
)
from runtimes.recover.vocabulary import Vocabulary, open_vocabulary
from tests.tiny import make_checkpoint

JUDGED = next(p.text for p in built_in(Budget.DEFAULT).prompts if p.text and len(p.text) > 300)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return open_vocabulary(make_checkpoint(tmp_path_factory.mktemp("model") / "tiny"), 1)


def test_chats_begin_as_the_template_does_with_its_system_prompt(vocabulary: Vocabulary) -> None:
    opening = vocabulary.detokenize(vocabulary.opening)
    assert opening == (
        "<|im_start|>system\nYou are a tiny test model<|im_end|>\n<|im_start|>user\n"
    )
    assert vocabulary.detokenize([vocabulary.separator]) == "<|endoftext|>"


def test_what_a_document_is_sampled_from_is_dropped(vocabulary: Vocabulary) -> None:
    def sampler(prompt: Sequence[int], rows: int, length: int, seed: int) -> list[list[int]]:
        return [[*prompt, *range(10 + row, 10 + row + length - len(prompt))] for row in range(rows)]

    (first, second) = drawn(Batch(False, 2, 0), sampler, vocabulary, 40, frozenset())
    assert (first.ids[0], second.ids[0], len(first.ids)) == (10, 11, 40)
    (chat,) = drawn(Batch(True, 1, 0), sampler, vocabulary, 60, frozenset())
    assert chat.ids[: chat.prefix] == vocabulary.opening[:30]


def test_what_is_sampled_of_the_evaluation_is_drawn_again(vocabulary: Vocabulary) -> None:
    judged = vocabulary.tokenize(JUDGED)
    known = evaluation_windows(vocabulary)
    seeds = []

    def reciting(prompt: Sequence[int], rows: int, length: int, seed: int) -> list[list[int]]:
        seeds.append(seed)
        text = judged if seed < 7 else [token % 9 for token in range(length)]
        return [[*prompt, *text][:length]] * rows

    (chunk,) = drawn(Batch(True, 1, 5), reciting, vocabulary, 200, known)
    assert seeds == [5, 6, 7]
    assert not shared_windows([chunk], known)
    with pytest.raises(InputError, match="recites"):
        drawn(Batch(True, 1, -100), reciting, vocabulary, 200, known)


def test_a_window_is_shared_from_32_tokens_on_beyond_the_prefix(vocabulary: Vocabulary) -> None:
    known, judged = evaluation_windows(vocabulary), tuple(vocabulary.tokenize(JUDGED))
    other = (0, 1, 2)
    assert not shared_windows([Chunk((*other, *judged[50 : 50 + WINDOW - 1], *other))], known)
    assert shared_windows([Chunk((*other, *judged[50 : 50 + WINDOW], *other))], known)
    assert not shared_windows([Chunk((*judged[:100], *other), prefix=100)], known)


def test_a_file_with_evaluation_text_is_refused(vocabulary: Vocabulary, tmp_path: Path) -> None:
    harmless = "The capital of France is Paris, and 42 is a number.\n" * 40
    path = tmp_path / "text.txt"
    path.write_text(harmless)
    known = evaluation_windows(vocabulary)
    text = read_text(path, vocabulary, known, 700, 100)
    assert 600 <= text.tokens <= 700
    prefixes = [chunk.prefix for chunk in text.chunks]
    assert prefixes[:3] == [len(vocabulary.opening[:50])] * 2 + [0]
    path.write_text(harmless[:500] + JUDGED)
    with pytest.raises(InputError, match="is text that parity is measured on") as raised:
        read_text(path, vocabulary, known, 4000, 256)
    assert "\n" not in str(raised.value)
    stored = Text((Chunk(tuple(vocabulary.tokenize(JUDGED))),))
    (tmp_path / "stored.json").write_bytes(stored.content)
    with pytest.raises(InputError, match="is text that parity is measured on"):
        read_text(tmp_path / "stored.json", vocabulary, known, 4000, 256)


def test_a_text_is_stored_and_read_again() -> None:
    text = Text((Chunk((1, 2, 3), 1), Chunk((4, 5))))
    again = parse_text(text.content, "file", 10)
    assert (again, again.sha256, again.tokens) == (text, text.sha256, 5)


def test_any_beginning_has_chats_and_documents() -> None:
    batches = planned(12 * 256, 256, 3, True, 1)
    assert [(b.chat, b.rows) for b in batches] == [
        (True, 3),
        (True, 3),
        (True, 2),
        (False, 3),
        (False, 1),
    ]
    assert len({b.seed for b in batches}) == len(batches)
    chunks = [[Chunk((n, n), int(b.chat))] * b.rows for n, b in enumerate(batches)]
    ordered = interleaved(batches, chunks).chunks
    assert [chunk.prefix for chunk in ordered[:6]] == [1, 1, 0, 1, 1, 0]
    assert len(ordered) == 12
