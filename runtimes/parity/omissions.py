"""Say what a text is too poor for, so that nobody takes its silence for a proof."""

from __future__ import annotations

from collections.abc import Sequence

from runtimes.parity.padding import can_be_padded
from runtimes.parity.suite import Document, Prompt


def not_compared(prompts: Sequence[Prompt], documents: Sequence[Document]) -> list[str]:
    """What was not looked at since the text has no example of it, in words."""
    notes = []
    if not any(prompt.messages for prompt in prompts):
        notes.append(
            "the text has no chats: chat templates and replies were not compared; give a .jsonl"
            " with messages"
        )
    if not can_be_padded(documents):
        notes.append("the text is too short for a padded batch: left padding was not compared")
    return notes
