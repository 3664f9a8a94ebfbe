"""What a chat template puts after an assistant's message: where a reply ends."""

from __future__ import annotations

import re
from collections.abc import Collection

from edgeproof.errors import InputError
from edgeproof.templates.renderer import Renderer

ANSWER = "That makes four"
CHAT = (
    {"role": "user", "content": "What is two and two"},
    {"role": "assistant", "content": ANSWER},
)
# What looks like a mark of a template, in case that it is no token of its own.
MARK = re.compile(r"<\|[^<>|]+\|>|</?[A-Za-z_]+>")


def turn_end_text(template: Renderer, tokens: Collection[str] = ()) -> str | None:
    """The mark behind an answer, one of `tokens` or what looks like one; None for plain text.

    Of a template that cannot be rendered for two messages, None.
    """
    try:
        text = template.render(CHAT, add_generation_prompt=False)
    except InputError:
        return None
    _, found, rest = text.rpartition(ANSWER)
    rest = rest.lstrip()
    known = [token for token in tokens if token and rest.startswith(token)]
    if not found or not rest:
        return None
    looks = MARK.match(rest)
    return max(known, key=len) if known else looks[0] if looks else None
