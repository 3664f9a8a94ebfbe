"""Replies side by side: of each prompt, what PyTorch wrote and what each export made of it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from runtimes.parity.replies import ReplyPair
from runtimes.parity.result import Entry

# How a token that would be invisible is shown.
INVISIBLE = {"\n": "↵\n", "\t": "⇥\t", "\r": "␍"}
NAMED = ("Cc", "Cf", "Zl", "Zp")  # categories without a glyph of their own
# In running text: control characters, and marks that turn the direction of what follows them.
DISTURBING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Other:
    """An export whose reply differs."""

    entry: Entry
    reply: ReplyPair


@dataclass(frozen=True)
class Sheet:
    """One prompt: PyTorch's reply, the exports that wrote the same, and those that did not."""

    document: str
    prompt: str
    reference: str
    reference_cut: bool
    same: tuple[str, ...]
    others: tuple[Other, ...]


def sheets(entries: Sequence[Entry]) -> dict[str, list[Sheet]]:
    """The sheets of greedy and of sampled replies; a kind without any is left out."""
    replies: dict[str, list[tuple[Entry, ReplyPair]]] = {"Greedy": [], "Sampled": []}
    for entry in entries:
        m = entry.measurement
        if m and m.greedy:
            replies["Greedy"] += [(entry, reply) for reply in m.greedy.replies]
        if m and m.sampled:
            replies["Sampled"] += [(entry, reply) for reply in m.sampled.shown]
    return {kind: _sheets(found) for kind, found in replies.items() if found}


def parted(reply: ReplyPair) -> bool:
    """Whether the two replies differ."""
    return bool(reply.reference_token or reply.export_token)


def visible(token: str) -> str:
    """A token as it is to be seen: line ends and tabs as signs, a lone space as an open box.

    What has no glyph is named; bytes that are no character are � already.
    """
    if token.strip(" ") == "":
        return "␣" * len(token)
    return "".join(INVISIBLE.get(c) or (_name(c) if _unseen(c) else c) for c in token)


def legible(text: str) -> str:
    """Running text in which nothing is hidden or turned round."""
    return DISTURBING.sub(lambda match: _name(match[0]), text)


def _sheets(found: Sequence[tuple[Entry, ReplyPair]]) -> list[Sheet]:
    documents = dict.fromkeys(reply.document for _, reply in found)
    return [_sheet([pair for pair in found if pair[1].document == name]) for name in documents]


def _sheet(found: Sequence[tuple[Entry, ReplyPair]]) -> Sheet:
    first = found[0][1]
    return Sheet(
        first.document,
        first.prompt,
        first.same + first.reference_token + first.reference_rest,
        first.reference_cut,
        tuple(entry.name for entry, reply in found if not parted(reply)),
        tuple(Other(entry, reply) for entry, reply in found if parted(reply)),
    )


def _unseen(character: str) -> bool:
    return unicodedata.category(character) in NAMED


def _name(character: str) -> str:
    return f"‹U+{ord(character):04X}›"
