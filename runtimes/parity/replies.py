"""Replies as text, cut where they part: for readers, nothing is judged by it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from runtimes.parity.decoding import first_difference
from runtimes.parity.suite import Document

REPLIES_SHOWN = 6  # of each kind: parity.json is for programs that show a few
PROMPT_SHOWN = 400  # characters from the end of the rendered prompt
PARTIAL = "\ufffd"  # what a tokenizer decodes the first bytes of a character to

Detokenize = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class ReplyPair:
    """The replies to one prompt, of the reference and of the export."""

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
    reference_cut: bool
    """Whether the reference's was cut at the greatest length, before it ended by itself."""
    export_cut: bool
    """Whether the export's was."""


def reply_texts(
    document: Document,
    reference: Sequence[int],
    export: Sequence[int],
    stop_tokens: Collection[int],
    detokenize: Detokenize,
) -> ReplyPair:
    """Decode two non-empty replies to a chat's prompt; one that has no stop token was cut."""
    shown = detokenize(document.prompt)
    if len(shown) > PROMPT_SHOWN:
        shown = "…" + shown[-PROMPT_SHOWN:]
    agreed = first_difference(reference, export)
    same, reference_token, reference_rest = parted(reference, agreed, detokenize)
    _, export_token, export_rest = parted(export, agreed, detokenize)
    return ReplyPair(
        document.id,
        shown,
        agreed,
        same,
        reference_token,
        reference_rest,
        export_token,
        export_rest,
        reference_cut=reference[-1] not in stop_tokens,
        export_cut=export[-1] not in stop_tokens,
    )


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
