"""What a text gives no example of is said, not passed over."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeproof.artifact import Precision
from runtimes.parity.gates import GATES
from runtimes.parity.long_range import Probe
from runtimes.parity.omissions import not_compared, not_judged
from runtimes.parity.padding import LENGTHS
from runtimes.parity.reference import Reference
from runtimes.parity.suite import Budget, Document, Prompt, built_in
from runtimes.parity.tokenizer import Mismatches
from tests.parity_results import measurement

CHAT = Prompt("c", "chat", messages=({"role": "user", "content": "Hello"},))
PLAIN = Prompt("p", "text", "Rain fell.")


CHATS = (Document("c", "chat", (1, 2, 3), 2),)
LONG = Probe((1, 2, 3), 2, np.zeros((1, 1), np.float32))


def reference(
    *lengths: int, chats: tuple[Document, ...] = CHATS, probe: Probe | None = LONG
) -> Reference:
    """One of texts of these lengths."""
    texts = tuple(Document("d", "text", tuple(range(length)), 0) for length in lengths)
    nothing = np.zeros((1, 1), np.float32)
    return Reference(texts, (nothing,), nothing, (), greedy_chats=chats, probe=probe)


def test_the_built_in_text_has_everything() -> None:
    assert not_compared(built_in(Budget.FAST).prompts, reference(100)) == []


def test_a_text_without_chats_says_what_was_not_compared() -> None:
    (note,) = not_compared([PLAIN], reference(100, chats=()))
    assert "no chats: chat templates and replies were not compared" in note
    assert not_compared([PLAIN, CHAT], reference(100)) == []


def test_chats_that_nobody_can_answer_are_said() -> None:
    """As a base model's, which has no chat template."""
    (note,) = not_compared([PLAIN, CHAT], reference(100, chats=()))
    assert "no chat of the text can be answered" in note


def test_a_text_too_short_for_padding_says_so() -> None:
    shortest = min(LENGTHS)
    (note,) = not_compared([CHAT], reference(shortest, shortest))
    assert "left padding was not compared" in note
    assert not_compared([CHAT], reference(shortest, shortest + 1)) == []


def test_a_run_without_a_long_text_says_so() -> None:
    (note,) = not_compared([CHAT], reference(100, probe=None))
    assert "no long text was read" in note


def test_a_gate_of_weights_that_cannot_be_read_is_said() -> None:
    """As of a graph that Optimum traced, whose weights have lost their names."""
    unread = measurement()
    (note,) = not_judged(GATES[Precision.LOW_BIT], unread)
    assert note.startswith("not judged: acceptance ≥ 0.93, of the weights alone")
    assert not_judged(GATES[Precision.FP16], unread) == []
    assert not_judged(GATES[Precision.LOW_BIT], replace(unread, exact_weights=True)) == []
    read = replace(unread, weights=unread.estimates)
    assert not_judged(GATES[Precision.LOW_BIT], read) == []


def test_a_long_string_that_tokenizes_differently_is_shown_by_its_beginning() -> None:
    told = Mismatches(5, 1, "x" * 9000, 0)
    assert told.text.endswith("x' … (9,000 characters)")
    assert len(told.text) < 300
    assert Mismatches(5, 2, " a\t", 0).text == "2 of 5 strings tokenize differently, first ' a\\t'"
