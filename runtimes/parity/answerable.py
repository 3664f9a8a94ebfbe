"""The chats of a text that a checkpoint's template takes: some refuse a system message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgeproof.errors import InputError
from edgeproof.templates import Message, RefusalError
from runtimes.parity.suite import Suite


@dataclass(frozen=True)
class Answerable:
    """A suite of chats that can be rendered, and in words what was left out; None for nothing."""

    suite: Suite
    note: str | None


def answerable(suite: Suite, render: Callable[[Sequence[Message]], str] | None) -> Answerable:
    """Leave out the chats that the template refuses by itself (`raise_exception`).

    `render` is the checkpoint's own; None of a model without a template.

    Raises:
        InputError: nothing is left, or the template fails otherwise.
    """
    if render is None:
        return Answerable(suite, None)
    chats = [prompt for prompt in suite.prompts if prompt.messages]
    refused: dict[str, str] = {}
    for chat in chats:
        try:
            render(chat.messages)
        except RefusalError as refusal:
            refused[chat.id] = refusal.reason
    if not refused:
        return Answerable(suite, None)
    reasons = "; ".join(dict.fromkeys(refused.values()))
    kept = tuple(item for item in suite.prompts if not (item.messages and item.id in refused))
    if not kept:
        raise InputError(f"{suite.name}: the chat template refuses every chat of it: {reasons}")
    note = (
        f"{len(refused)} of {len(chats)} chats of the text are left out, since the checkpoint's"
        f" template refuses them: {reasons}"
    )
    return Answerable(replace(suite, prompts=kept), note)
