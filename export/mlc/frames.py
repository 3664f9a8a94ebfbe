"""Take a chat template apart: what stands before, between and after messages, as MLC names it.

The template is rendered for a few words that it cannot contain, and cut at them. Marks such as
`<|eot_id|>` are never cut in two: WebLLM makes tokens of each message by itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeproof.errors import InputError
from edgeproof.templates import Message, Renderer

SYSTEM_SLOT = "{system_message}"
USER, ANSWER, NEXT, SYSTEM = "Uvwa", "Uvwb", "Uvwc", "Uvwd"
CHAT: tuple[Message, ...] = (
    {"role": "user", "content": USER},
    {"role": "assistant", "content": ANSWER},
    {"role": "user", "content": NEXT},
)
MARK = r"<\|[^<>|]+\|>|</?[A-Za-z_]+>|\[/?[A-Z_]+\]"


class Inexpressible(InputError):
    """A chat template that is not prefixes and separators."""

    def __init__(self, source: Path, reason: str) -> None:
        super().__init__(
            f"{source}: MLC cannot express this chat template: {reason}; give the checkpoint one"
            " that frames each message alike, or none for plain completion"
        )


@dataclass(frozen=True)
class Frames:
    """MLC's fields of a conversation.

    `roles` with `content` stand before a message, `seps` after one of a user, and after one of an
    assistant (one for both, where they are alike); `empty` before a reply.
    `system` frames a system message; None where the template takes none at its beginning.
    """

    name: str
    system: str | None
    roles: Mapping[str, str]
    seps: tuple[str, ...]
    content: str
    empty: str

    @property
    def fields(self) -> dict[str, Any]:
        """Those of `conv_template`, without the system message's."""
        return {
            "name": self.name,
            "roles": dict(self.roles),
            "seps": list(self.seps),
            "role_content_sep": self.content,
            "role_empty_sep": self.empty,
        }


def find_frames(template: Renderer, tokens: Collection[str]) -> Frames:
    """The frames of a template; `tokens` are texts that are one token each.

    They are those of one conversation: whether they fit others is for the caller to see.

    Raises:
        InputError: the template cannot be rendered, or messages do not stand in it as they are.
    """
    marks = sorted(filter(None, tokens), key=len, reverse=True)
    atoms = re.compile("|".join((*map(re.escape, marks), MARK, ".")), re.DOTALL)
    first, middle, second, last = (
        atoms.findall(part) for part in _around(template, CHAT, (USER, ANSWER, NEXT))
    )
    user = _common(first[::-1], second[::-1])[::-1]
    after_answer = second[: len(second) - len(user)]
    after_user = _common(middle, last)
    after_user = _common(after_user, after_answer) or _spaces(after_user)
    history, reply = middle[len(after_user) :], last[len(after_user) :]
    content = _spaces(_common(user[::-1], history[::-1]))[::-1]
    assistant = history[: len(history) - len(content)]
    if reply[: len(assistant)] != assistant:
        assistant = _common(history, reply)
        content = history[len(assistant) :]
    if user[len(user) - len(content) :] != content:
        raise Inexpressible(template.source, "an answer begins otherwise than a question")
    seps = ("".join(after_user), "".join(after_answer))
    return Frames(
        "own",
        _system(template, "".join(user)),
        {
            "user": "".join(user[: len(user) - len(content)]),
            "assistant": "".join(assistant),
        },
        seps[:1] if seps[0] == seps[1] else seps,
        "".join(content),
        "".join(reply[len(assistant) :]),
    )


def _around(template: Renderer, messages: Sequence[Message], words: Sequence[str]) -> list[str]:
    """The rendered text without the words, which stand in it once each, in order."""
    rest, parts = template.render(messages), []
    for word in words:
        part, found, rest = rest.partition(word)
        if not found or word in rest:
            raise Inexpressible(template.source, "it does not say each message once, as it is")
        parts.append(part)
    return [*parts, rest]


def _system(template: Renderer, user: str) -> str | None:
    """How it frames a system message, where that stands before the first question."""
    chat: tuple[Message, ...] = ({"role": "system", "content": SYSTEM}, *CHAT[:1])
    try:
        before, after, _ = _around(template, chat, (SYSTEM, USER))
    except InputError:  # it takes no such message, or not there
        return None
    if not after.endswith(user):
        return None
    return before + SYSTEM_SLOT + after.removesuffix(user)


def _common(one: Sequence[str], other: Sequence[str]) -> list[str]:
    """What both begin with."""
    pairs = zip(one, other, strict=False)
    count = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
    return list(one[:count])


def _spaces(atoms: Sequence[str]) -> list[str]:
    """The spaces and line ends that it begins with."""
    count = next((i for i, atom in enumerate(atoms) if not atom.isspace()), len(atoms))
    return list(atoms[:count])
