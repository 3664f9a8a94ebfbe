"""Replies as text, cut where they part: for readers, nothing is judged by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

REPLIES_SHOWN = 6  # of each kind: parity.json is for programs that show a few
PROMPT_SHOWN = 400  # characters from the end of the rendered prompt
PARTIAL = "\ufffd"  # what a tokenizer decodes the first bytes of a character to

Detokenize = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Reply:
    """One prompt's replies, of the reference and of the export."""

    document: str
    """Its id in the text."""
    prompt: str
    """The end of the rendered prompt."""
    agreed_tokens: int
    """Before the first difference."""
    same: str
    """What both replies begin with."""
    reference_token: str
    """The reference's first differing token; empty when the replies are identical."""
    reference_rest: str
    """What follows it."""
    export_token: str
    """The export's first differing token; empty when the replies are identical."""
    export_rest: str
    """What follows it."""


def reply_texts(
    document: str,
    prompt: Sequence[int],
    reference: Sequence[int],
    export: Sequence[int],
    agreed: int,
    detokenize: Detokenize,
) -> Reply:
    """Decode two replies that share their first `agreed` tokens."""
    shown = detokenize(prompt)
    if len(shown) > PROMPT_SHOWN:
        shown = "…" + shown[-PROMPT_SHOWN:]
    same, *rest = parted(reference, agreed, detokenize)
    _, *other = parted(export, agreed, detokenize)
    return Reply(document, shown, agreed, same, *rest, *other)


def parted(ids: Sequence[int], at: int, detokenize: Detokenize) -> tuple[str, str, str]:
    """The text before token `at`, of it, and after it; token and rest are empty at the end.

    Cut in the decoded whole, since decoding a token alone may change its spaces; a character whose
    bytes several tokens share belongs to the first that is shown.
    """
    whole = detokenize(ids)
    start = len(detokenize(ids[:at]).rstrip(PARTIAL))
    if at >= len(ids):
        return whole, "", ""
    stop = max(len(detokenize(ids[: at + 1]).rstrip(PARTIAL)), start + 1)
    return whole[:start], whole[start:stop], whole[stop:]
