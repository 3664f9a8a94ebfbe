"""A SentencePiece vocabulary of a GGUF file (`llama`): tokens with scores, as merges.

llama.cpp joins the two neighbours whose joint text has the highest score, the leftmost first
(src/llama-vocab.cpp, `llm_tokenizer_spm_session`). Merges in the order of scores do the same, and
are those of a published tokenizer.json: transformers makes them so of a tokenizer.model
(`convert_slow_tokenizer.py`, `generate_merges`).

Tokens that are searched in a text before it is split are no parts of merges; they have spaces where
others have ▁, since it is the text as it came that is searched.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from edgeproof.errors import InputError
from export.llamacpp.pieces import pairs
from export.sources.gguf_tokens import BYTE, SEARCHED, UNKNOWN, Json, Parts, Tokens, bpe

SPACE = "\u2581"
TO_SPACE: Json = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
FROM_SPACE: Json = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
LEGACY: Json = {
    "type": "Sequence",
    "normalizers": [{"type": "Prepend", "prepend": SPACE}, FROM_SPACE],
}
STRIP: Json = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
# llama.cpp joins to whatever token there is, but finds these before, or makes them of bytes.
NO_PIECES = SEARCHED | {BYTE}
SCORES = "tokenizer.ggml.scores"

log = logging.getLogger(__name__)


def sentencepiece(tokens: Tokens) -> Parts:
    """See `ReadParts`."""
    prefix = tokens.meta.flag("tokenizer.ggml.add_space_prefix", True)
    types = tokens.types
    pieces = {text: i for text, i in tokens.known.items() if types[i] not in NO_PIECES}
    unknown = tokens.texts[types.index(UNKNOWN)] if UNKNOWN in types else None
    after = [TO_SPACE, {"type": "ByteFallback"}, {"type": "Fuse"}]
    scores = _scores(tokens, list(pieces.values()))
    # The highest score first; of the same text the pair with the longest left part.
    falling = sorted(pieces, key=lambda text: -scores[pieces[text]])
    return Parts(
        normalizer=LEGACY if prefix else FROM_SPACE,
        pre_tokenizer=None,
        decoder={"type": "Sequence", "decoders": [*after, STRIP] if prefix else after},
        model=bpe(
            tokens.known,
            list(pairs(falling, pieces, f"{tokens.meta.path}: tokenizer.ggml.tokens")),
            unk_token=unknown or tokens.special.get("unk_token"),
            fuse_unk=True,
            byte_fallback=True,
        ),
        add_bos=True,
    )


def _scores(tokens: Tokens, pieces: Sequence[int]) -> Sequence[float]:
    scores = tokens.meta.numbers(SCORES)
    if len(scores) != len(tokens.texts):
        raise InputError(f"{tokens.meta.path}: {SCORES} and tokens differ in length; damaged file")
    if len({scores[index] for index in pieces}) < len(pieces):
        log.warning(
            "%s: several pieces have the same score, of which llama.cpp joins the leftmost first:"
            " some texts may get other tokens",
            tokens.meta.path,
        )
    return scores
