"""tokenizer.json as transformers uses it: opened, and without what training left in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeproof.errors import InputError

TOKENIZER = "tokenizer.json"
# What a runtime may need beside the weights; everything else in the folder is ignored.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)
# transformers encodes without them unless it is asked; other runtimes obey the file.
LEFTOVERS = ("padding", "truncation")


def unpadded(document: Mapping[str, Any]) -> dict[str, Any]:
    """A parsed tokenizer.json that neither pads nor cuts texts."""
    return {key: None if key in LEFTOVERS else value for key, value in document.items()}


def require_readable(folder: Path) -> None:
    """Open the tokenizer, as every runtime that takes the file will.

    Raises:
        InputError: Hugging Face's tokenizers library cannot read it.
    """
    from tokenizers import Tokenizer

    path = folder / TOKENIZER
    try:
        Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001  the library raises nothing narrower
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: cannot be opened ({reason}), so nothing could load it; save the tokenizer"
            " again with transformers' save_pretrained"
        ) from None
