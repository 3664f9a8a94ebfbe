"""Whether a tokenizer.json puts a space before a text, as llama.cpp's `add_space_prefix` does.

llama.cpp writes each space as ▁. With the key it puts one space more before every stretch of text
between special tokens; without, none. transformers' slow tokenizers did so too ("legacy").
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from edgeproof.errors import InputError

SPACE = "\u2581"
PREPEND = {"type": "Prepend", "prepend": SPACE}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
# Once spaces are ▁, nothing is left to split.
NO_SPLIT = {"type": "Split", "pattern": {"String": " "}}

Json = Mapping[str, Any]
log = logging.getLogger(__name__)


def space_prefix(tokenizer: Json, tokens: Iterable[str]) -> bool:
    """Whether a text begins with a ▁ of its own; `tokens` are the ordinary ones.

    Raises:
        InputError: text becomes tokens in another way than llama.cpp has.
    """
    before = list(_steps(tokenizer.get("normalizer"), "normalizers"))
    after = list(_steps(tokenizer.get("pre_tokenizer"), "pretokenizers"))
    splits = [step for step in after if not NO_SPLIT.items() <= step.items()]
    prefix = {step["type"] for step in before} == {"Prepend", "Replace"}
    if not splits and before in ([PREPEND, REPLACE], [REPLACE, PREPEND], [REPLACE]):
        if prefix:
            _warn_of_normalised(tokenizer)
        return prefix
    if not before and [step["type"] for step in after] == ["Metaspace"]:
        return _metaspace(after[0], tokens)
    names = " + ".join(str(step["type"]) for step in (*before, *after)) or "neither"
    raise InputError(
        f"tokenizer.json: normalizer and pre-tokenizer ({names}) are not those of a SentencePiece"
        " vocabulary that llama.cpp has: it only writes spaces as ▁"
    )


def _metaspace(step: Json, tokens: Iterable[str]) -> bool:
    if step.get("replacement", SPACE) != SPACE:
        raise InputError(
            f"tokenizer.json: Metaspace writes spaces as {step['replacement']!r}, llama.cpp as ▁"
        )
    if step.get("split", True) and (across := next((t for t in tokens if SPACE in t[1:]), None)):
        raise InputError(
            f"tokenizer.json: Metaspace splits at spaces, so that {across!r} is never made;"
            " llama.cpp's SentencePiece vocabulary would make it"
        )
    old = "always" if step.get("add_prefix_space", True) else "never"
    scheme = step.get("prepend_scheme", old)
    if scheme == "never":
        return False
    where = "only where a text begins" if scheme == "first" else "where there is none"
    log.warning(
        "tokenizer.json: this tokenizer puts a space before a text %s, llama.cpp after every"
        " special token and before a space too: there, and so in most chats, other tokens follow",
        where,
    )
    return True


def _warn_of_normalised(tokenizer: Json) -> None:
    tokens = [t["content"] for t in tokenizer.get("added_tokens") or () if t.get("normalized")]
    if tokens:
        log.warning(
            "tokenizer.json: %s are searched after a space was put before the text (`normalized`),"
            " in llama.cpp anywhere: texts with them may get other tokens",
            ", ".join(map(repr, tokens)),
        )


def _steps(part: Json | None, children: str) -> Iterator[Json]:
    if part is None:
        return
    if part["type"] == "Sequence":
        for child in part[children]:
            yield from _steps(child, children)
    else:
        yield part
