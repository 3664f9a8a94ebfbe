"""What MLC's config states about a tokenizer.json.

Source: mlc_llm `cpp/tokenizers/tokenizers.cc`, `Tokenizer::DetectTokenizerInfo`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgeproof.errors import InputError
from export.checkpoint import Checkpoint

POSTPROCESSING = {"ByteLevel": "byte_level", "ByteFallback": "byte_fallback"}
DEFAULT_POSTPROCESSING = "byte_fallback"
PREPEND = {"type": "Prepend", "prepend": "▁"}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


@dataclass(frozen=True)
class TokenizerFacts:
    """`info` is MLC's `tokenizer_info`; `vocabulary` counts distinct tokens, added ones included.

    `added` maps the text of special and other added tokens to their ids.
    """

    info: dict[str, Any]
    vocabulary: int
    added: dict[str, int]


def read_facts(checkpoint: Checkpoint) -> TokenizerFacts:
    """Read the checkpoint's tokenizer.json.

    Raises:
        InputError: it is not a tokenizer of Hugging Face's tokenizers library.
    """
    raw = checkpoint.tokenizer
    try:
        added = {str(token["content"]): int(token["id"]) for token in raw["added_tokens"]}
        vocabulary = raw["model"]["vocab"]  # {token: id}, or [[token, score], …]
        tokens = vocabulary if isinstance(vocabulary, dict) else [item[0] for item in vocabulary]
        return TokenizerFacts(tokenizer_info(raw), len({*tokens, *added}), added)
    except (KeyError, TypeError, ValueError, IndexError):
        path = checkpoint.tokenizer_files["tokenizer.json"]
        raise InputError(f"{path}: not a tokenizer file; save the fast tokenizer again") from None


def tokenizer_info(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """How MLC turns text into tokens and back, from a parsed tokenizer.json."""
    decoders = list(_steps(tokenizer.get("decoder"), "decoders"))
    normalizers = list(_steps(tokenizer.get("normalizer"), "normalizers"))
    methods = [POSTPROCESSING[step["type"]] for step in decoders if step["type"] in POSTPROCESSING]
    return {
        "token_postproc_method": methods[-1] if methods else DEFAULT_POSTPROCESSING,
        "prepend_space_in_encode": PREPEND in normalizers,
        "strip_space_in_decode": STRIP in decoders,
    }


def _steps(part: Mapping[str, Any] | None, key: str) -> Iterator[Mapping[str, Any]]:
    if part is None:
        return
    if part["type"] == "Sequence":
        yield from part[key]
    else:
        yield part
