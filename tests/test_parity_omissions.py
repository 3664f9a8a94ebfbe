"""What a text gives no example of is said, not passed over."""

from __future__ import annotations

from runtimes.parity.omissions import not_compared
from runtimes.parity.padding import LENGTHS
from runtimes.parity.suite import Budget, Document, Prompt, built_in

CHAT = Prompt("c", "chat", messages=({"role": "user", "content": "Hello"},))
PLAIN = Prompt("p", "text", "Rain fell.")


def document(length: int) -> Document:
    return Document("d", "text", tuple(range(length)), 0)


def test_the_built_in_text_has_everything() -> None:
    assert not_compared(built_in(Budget.FAST).prompts, [document(100)]) == []


def test_a_text_without_chats_says_what_was_not_compared() -> None:
    (note,) = not_compared([PLAIN], [document(100)])
    assert "no chats: chat templates and replies were not compared" in note
    assert not_compared([PLAIN, CHAT], [document(100)]) == []


def test_a_text_too_short_for_padding_says_so() -> None:
    shortest = min(LENGTHS)
    (note,) = not_compared([CHAT], [document(shortest), document(shortest)])
    assert "left padding was not compared" in note
    assert not_compared([CHAT], [document(shortest), document(shortest + 1)]) == []
