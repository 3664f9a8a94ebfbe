"""The lists that every vocabulary of a GGUF file has: token texts and types by id.

Types as in convert_hf_to_gguf.py (`get_vocab_base`, `_create_vocab_sentencepiece`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeproof.checkpoints.tokenizer import no_text
from edgeproof.errors import InputError

# llama.cpp's llama_token_type
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
# Texts of tokens that are control tokens even where the tokenizer does not mark them.
CONTROL_BRACKETS = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))
CONTROL_TEXTS = frozenset({"<pad>", "<mask>", "<2mass>", "[@BOS@]"})

Json = Mapping[str, Any]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary as llama.cpp has it.

    Attributes:
        model: `tokenizer.ggml.model`, the algorithm.
        pre: `tokenizer.ggml.pre`, how text is split first.
        tokens: the texts by id.
        types: llama.cpp's token types by id.
        scores: by id, where the algorithm has them.
        merges: "left right", the first goes first, where the algorithm has them.
        space_prefix: whether a space is put before a text; None where the algorithm has none.
        merges_spaces: whether several spaces are read as one, where the algorithm has that.
        ends_texts: whether llama.cpp puts its EOS after a text where the file does not say.
        unknown: the id of what is read as no token, where the algorithm has one of its own.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None = None
    merges: list[str] | None = None
    space_prefix: bool | None = None
    merges_spaces: bool | None = None
    ends_texts: bool = False
    unknown: int | None = None


@dataclass(frozen=True)
class VocabularyKind:
    """One of llama.cpp's kinds: which tokenizer.json is of it, and how one is read.

    `title` with its article is for messages; `read` takes a tokenizer.json and the number of the
    model's ids. Both may raise what a malformed document causes (KeyError, TypeError, …); `read`
    also InputError for what llama.cpp has not.
    """

    title: str
    claims: Callable[[Json], bool]
    read: Callable[[Json, int], Vocabulary]


def added_tokens(tokenizer: Json) -> dict[int, tuple[str, int]]:
    """Added tokens: id → text in the file and type."""
    found = {}
    for item in tokenizer.get("added_tokens") or ():
        text = item["content"]
        if item["special"] or _looks_special(text):
            found[int(item["id"])] = text, CONTROL
        else:
            found[int(item["id"])] = text.replace("\u2581", " "), USER_DEFINED
    return found


def laid_out(
    tokenizer: Json, own: Mapping[int, tuple[str, int]], vocab: int
) -> tuple[list[str], list[int]]:
    """Texts and types of `vocab` ids: `own`, the model's (text, type) by id, and added ones.

    Raises:
        InputError: an id beyond the vocabulary, a placeholder of images aside, or two ids with the
            same text.
    """
    added = {}
    for index, (text, kind) in added_tokens(tokenizer).items():
        if no_text(text, index, vocab):
            log.warning("tokenizer.json: %s, which has no row of the embedding, is left out", text)
        else:
            added[index] = text, kind
    known = {**own, **added}
    highest = max(known)
    if highest >= vocab:
        raise InputError(
            f"tokenizer.json: token {known[highest][0]!r} has the id {highest}, and the embedding"
            f" rows for {vocab} tokens (vocab_size of config.json); give it a row in transformers"
            " (model.resize_token_embeddings(len(tokenizer))) or remove the token"
        )
    rows = [known.get(index, (f"[PAD{index}]", UNUSED)) for index in range(vocab)]
    tokens, types = [text for text, _ in rows], [kind for _, kind in rows]
    _check_distinct(tokens)
    greedy = [t["content"] for t in tokenizer.get("added_tokens") or () if _greedy(t)]
    if greedy:
        log.warning(
            "tokenizer.json: llama.cpp takes no spaces with %s, as transformers does: texts with"
            " spaces beside them may get other tokens",
            ", ".join(map(repr, greedy)),
        )
    return tokens, types


def _greedy(token: Json) -> bool:
    return any(token.get(key) for key in ("lstrip", "rstrip", "single_word"))


def _check_distinct(tokens: list[str]) -> None:
    first: dict[str, int] = {}
    for index, text in enumerate(tokens):
        if first.setdefault(text, index) != index:
            raise InputError(
                f"tokenizer.json: ids {first[text]} and {index} have the same text {text!r}, on"
                " which llama.cpp ends the whole program; give one of them another text"
            )


def _looks_special(text: str) -> bool:
    brackets = any(text.startswith(a) and text.endswith(b) for a, b in CONTROL_BRACKETS)
    return brackets or text in CONTROL_TEXTS
