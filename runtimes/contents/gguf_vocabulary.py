"""What the lists of a GGUF file's vocabulary have to say, from the checkpoint's tokenizer.json.

Keys, texts and types: convert_hf_to_gguf.py, `_set_vocab_gpt2` and `_set_vocab_sentencepiece`;
of a Unigram, conversion/t5.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from edgeproof.checkpoints.tokenizer import no_text, token_ids
from runtimes.contents.expectation import Exercised, Expected, Free, Maybe
from runtimes.contents.origin import Origin

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # llama_token_type
SPECIAL_TEXT = re.compile(r"<\|.*\|>|<｜.*｜>|<unused.*>|<pad>|<mask>|<2mass>|\[@BOS@\]", re.DOTALL)
BYTE_TEXT = re.compile(r"<0x[0-9A-F]{2}>")
SPACE = "\u2581"
UNIGRAM = "Unigram"
NO_TOKEN = Free("the checkpoint has no token of that id")
SPLITS = Exercised("5,000 strings become the same tokens")

Json = Mapping[str, Any]


def lists(origin: Origin, *, ours: bool) -> dict[str, Any]:
    """The algorithm, its tokens with their types, what orders its merges, the space before.

    Ids that no token of the checkpoint has are `ours` to name; others may have tokens there.
    """
    tokenizer = origin.tokenizer
    model = tokenizer["model"]
    tokens, types = _tokens(tokenizer, int(origin.facts["vocab_size"]))
    named = [
        NO_TOKEN if kind == UNUSED and not ours else text
        for text, kind in zip(tokens, types, strict=True)
    ]
    common = {"pre": SPLITS, "tokens": named, "token_type": types}
    if model.get("type") == UNIGRAM:
        return {
            "model": "t5",
            **common,
            "scores": _scores(model["vocab"], types),
            "unknown_token_id": model["unk_id"],
            "add_space_prefix": _prefix(tokenizer),
            "remove_extra_whitespaces": False,
            "add_eos_token": bool(origin.around[1]),  # by itself llama.cpp would
        }
    if not model.get("byte_fallback"):
        space = origin.settings.get("add_prefix_space")
        merges = [_merge(item) for item in model["merges"]]
        said = {} if space is None else {"add_space_prefix": Maybe(space)}
        return {"model": "gpt2", **common, "merges": merges, **said}
    prefix = _prefix(tokenizer)
    return {
        "model": "llama",
        **common,
        "scores": _falling(model["merges"], tokens, types),
        "add_space_prefix": Maybe(True) if prefix else False,
    }


def _tokens(tokenizer: Json, size: int) -> tuple[list[str], list[int]]:
    model = tokenizer["model"]
    texts = {int(index): text for text, index in token_ids(tokenizer).items()}
    tokens = [texts.get(index, f"[PAD{index}]") for index in range(size)]
    types = [_type(texts[i], i, model) if i in texts else UNUSED for i in range(size)]
    for item in tokenizer.get("added_tokens") or ():
        text, index = item["content"], int(item["id"])
        if no_text(text, index, size):
            continue
        control = item["special"] or SPECIAL_TEXT.fullmatch(text)
        tokens[index] = text if control else text.replace(SPACE, " ")
        types[index] = CONTROL if control else USER_DEFINED
    return tokens, types


def _type(text: str, index: int, model: Json) -> int:
    if model.get("type") == UNIGRAM:
        return UNKNOWN if index == model["unk_id"] else NORMAL
    if not model.get("byte_fallback"):
        return NORMAL
    if BYTE_TEXT.fullmatch(text):
        return BYTE
    return UNKNOWN if text == model.get("unk_token") else NORMAL


def _merge(item: Any) -> str:
    """A merge as "left right"; a space within a part is written Ġ."""
    if isinstance(item, str):
        return item
    return " ".join(part.replace(" ", "Ġ") for part in item)


def _scores(vocab: Sequence[Any], types: Sequence[int]) -> Expected:
    """A Unigram's own scores of its ordinary tokens, as float32; no one reads those of others."""
    own = {i: float(np.float32(row[1])) for i, row in enumerate(vocab) if types[i] == NORMAL}

    def allows(said: Any) -> bool:
        return len(said) == len(types) and all(said[i] == score for i, score in own.items())

    return Expected("the tokenizer's own scores", allows)


def _falling(merges: Sequence[Any], tokens: Sequence[str], types: Sequence[int]) -> Expected:
    """llama.cpp merges what has the higher score: the order must be that of the merges."""
    normal = {text: i for i, text in enumerate(tokens) if types[i] == NORMAL}
    made = ("".join(m.split(" ") if isinstance(m, str) else m) for m in merges)
    order = list(dict.fromkeys(normal[text] for text in made if text in normal))

    def allows(said: Any) -> bool:
        scores = [said[index] for index in order]
        falls = all(before > after for before, after in pairwise(scores))
        return len(said) == len(tokens) and falls and all(map(math.isfinite, said))

    return Expected("scores that fall in the order of the merges", allows)


def _prefix(tokenizer: Json) -> bool:
    """Whether the tokenizer puts a space before a text."""
    parts = [tokenizer.get("normalizer") or {}, tokenizer.get("pre_tokenizer") or {}]
    steps = [
        step
        for part in parts
        for step in part.get("normalizers") or part.get("pretokenizers") or [part]
    ]
    schemes = (
        step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
        for step in steps
        if step.get("type") == "Metaspace"
    )
    return any(step.get("type") == "Prepend" for step in steps) or any(
        scheme != "never" for scheme in schemes
    )
