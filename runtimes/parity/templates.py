"""Chat template equality: an artifact renders the same prompts as the checkpoint's own template."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeproof.templates import RefusalError
from runtimes.chat_templates import Message, Render
from runtimes.parity.decoding import first_difference
from runtimes.parity.suite import Prompt

# Characters of a difference that a reason shows.
EXCERPT = 40


def _shape(name: str, *roles: str) -> Prompt:
    return Prompt(name, "chat", None, tuple({"role": role, "content": role} for role in roles))


# Rendered as well, since a text may have chats of one kind only; what a checkpoint refuses is not.
SHAPES = (
    _shape("one question", "user"),
    _shape("a system message", "system", "user"),
    _shape("a second question", "user", "assistant", "user"),
    _shape("all of it", "system", "user", "assistant", "user", "assistant", "user"),
)


@dataclass(frozen=True)
class TemplateResult:
    """The artifact's own chat template against the checkpoint's."""

    chats: int
    """Prompts that were rendered by both: those of the text."""
    different: int
    """Those that came out differently."""
    inexpressible: int
    """Those that the artifact's format cannot express."""
    fault: str | None
    """What is wrong in words, with the first prompt that differs and the place."""

    @property
    def notes(self) -> list[str]:
        """What is no fault of the file, but users should know."""
        if not self.inexpressible:
            return []
        return [
            f"{self.inexpressible} of {self.chats} chats have a system message, which this"
            " conversation template has no place for"
        ]


def compare_templates(
    render: Render | None,
    expected: Callable[[Sequence[Message]], str] | None,
    prompts: Sequence[Prompt],
) -> TemplateResult:
    """Render all chats among the prompts by an artifact's template and by the checkpoint's.

    If there are any, chats of every usual shape too.

    Raises:
        InputError: the artifact's template fails.
    """
    chats = [prompt for prompt in prompts if prompt.messages]
    if render is None or expected is None:
        fault = None
        if (render is None) != (expected is None):
            owner, other = ("artifact", "checkpoint")[:: 1 if render else -1]
            fault = f"chat template: the {owner} has one, the {other} has none"
        return TemplateResult(0, 0, 0, fault)
    different, inexpressible, fault = 0, 0, None
    rendered = [(chat, expected(chat.messages)) for chat in chats]
    rendered += _shapes(expected) if chats else []
    for chat, theirs in rendered:
        ours = render(chat.messages)
        if ours is None:
            inexpressible += chat in chats
        elif ours != theirs:
            different += 1
            fault = fault or _difference(chat.id, ours, theirs)
    if fault:
        fault = f"chat template: {different} of {len(rendered)} prompts differ, first {fault}"
    return TemplateResult(len(chats), different, inexpressible, fault)


def _shapes(expected: Callable[[Sequence[Message]], str]) -> list[tuple[Prompt, str]]:
    found = []
    for chat in SHAPES:
        with contextlib.suppress(RefusalError):
            found.append((chat, expected(chat.messages)))
    return found


def _difference(name: str, ours: str, theirs: str) -> str:
    place = first_difference(ours, theirs)
    excerpt = slice(place, place + EXCERPT)
    return (
        f"{name} at character {place}: {ours[excerpt]!r} where the checkpoint has"
        f" {theirs[excerpt]!r}"
    )
