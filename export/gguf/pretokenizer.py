"""Find which of llama.cpp's built-in pre-tokenizers a tokenizer.json describes.

llama.cpp's converter tells them apart by a hash of token ids, which knows only vocabularies seen
before. Here the description itself is compared, so any vocabulary trained with a known
pre-tokenizer is found, and nothing that splits text differently is let through.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from edgeproof.errors import InputError
from export.llamacpp.pre_types import PRE_TYPES, PreType

log = logging.getLogger(__name__)

Steps = tuple[tuple[Any, ...], ...]
Signature = tuple[Steps, Steps, bool]  # normalizer, pre-tokenizer, ignore_merges

# The settings of each step that change how text is split, with their defaults.
FIELDS: dict[str, tuple[tuple[str, Any], ...]] = {
    "Digits": (("individual_digits", False),),
    "ByteLevel": (("add_prefix_space", True), ("use_regex", True)),
    "Split": (("pattern", None), ("behavior", None), ("invert", False)),
}


def pretokenizer_name(tokenizer: Mapping[str, Any]) -> str:
    """The value of `tokenizer.ggml.pre` for a parsed tokenizer.json.

    Several names of one pre-tokenizer (SmolLM, StarCoder, …) are the same to llama.cpp; the first
    of them in `PRE_TYPES` is given. llama.cpp never normalises, so a tokenizer that does not either
    is split exactly, whatever the models do that are known by the name. What llama.cpp splits in
    another way all the same, a line says.

    Raises:
        InputError: llama.cpp's pre-tokenizer for it is not known here.
    """
    normalizer = _steps(tokenizer.get("normalizer"), "normalizers")
    steps = _steps(tokenizer.get("pre_tokenizer"), "pretokenizers")
    ignore_merges = bool(tokenizer["model"].get("ignore_merges", False))
    for name, kind in PRE_TYPES.items():
        known, splits, whole_words = _signature(kind)
        if (splits, whole_words) == (steps, ignore_merges) and normalizer in (known, ()):
            if kind.otherwise:
                log.warning(
                    "tokenizer.json: llama.cpp's %s splits %s may get other tokens",
                    name,
                    kind.otherwise,
                )
            return name
    raise InputError(
        f"tokenizer.json: normalizer {_text(normalizer)}, pre-tokenizer {_text(steps)},"
        f" ignore_merges {ignore_merges}: no llama.cpp pre-tokenizer known for this;"
        f" supported: {', '.join(PRE_TYPES)}"
    )


def _signature(kind: PreType) -> Signature:
    byte_level = ("ByteLevel", False, kind.gpt2_words)
    splits = tuple(step for split in kind.splits for step in _steps(split, ""))
    return _steps(kind.normalizer, "normalizers"), (*splits, byte_level), kind.ignore_merges


def _steps(part: Mapping[str, Any] | None, children: str) -> Steps:
    """Flatten a (sequence of) normalizer or pre-tokenizer into comparable tuples."""
    if part is None:
        return ()
    if part["type"] == "Sequence":
        return tuple(step for child in part[children] for step in _steps(child, children))
    values = (part.get(key, default) for key, default in FIELDS.get(part["type"], ()))
    return ((part["type"], *(_plain(value) for value in values)),)


def _plain(value: Any) -> Any:
    """A split pattern {"Regex": text} as its text, other settings as they are.

    Line ends stand in patterns themselves or escaped, which is the same.
    """
    if not isinstance(value, dict):
        return value
    return str(value.get("Regex", value)).replace("\r", r"\r").replace("\n", r"\n")


def _text(steps: Steps) -> str:
    return " + ".join(f"{step[0]}{list(step[1:])}" for step in steps) or "none"
