"""What a checkpoint's folder says of its tokenizer's special tokens beside tokenizer.json.

Source: transformers `tokenization_utils_base.py`, `_from_pretrained`: tokenizer_config.json counts;
one that lists no `added_tokens_decoder`, or is not there, is older than that list, and
special_tokens_map.json goes before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgeproof.errors import InputError

SETTINGS, MAP = "tokenizer_config.json", "special_tokens_map.json"
DECODER = "added_tokens_decoder"
# The names that transformers gives special tokens, as bos_token; `extra` ones have no name.
NAMED = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
EXTRA = ("extra_special_tokens", "additional_special_tokens")

Json = Mapping[str, Any]


def tokenizer_settings(read: Callable[[str], Json]) -> dict[str, Any]:
    """The settings that count; `read` gives a JSON file of the folder, or {} where it is absent."""
    settings = dict(read(SETTINGS))
    return settings if DECODER in settings else {**settings, **read(MAP)}


def shipped_settings(settings: Json) -> dict[str, Any]:
    """A tokenizer_config.json for a folder without one: transformers.js opens no model so.

    `settings` are those that count. The class is what transformers takes where nothing names one.
    """
    return {"tokenizer_class": "PreTrainedTokenizerFast", **settings}


def token_text(settings: Json, role: str, folder: Path) -> str | None:
    """The text of the token of a role, as `bos`; None where the settings of a folder name none.

    Raises:
        InputError: it is neither a text nor an AddedToken's fields.
    """
    token = settings.get(f"{role}_token")
    text = token.get("content") if isinstance(token, Mapping) else token
    if text is not None and not isinstance(text, str):
        source = folder / SETTINGS if DECODER in settings else f"{folder}: {SETTINGS} or {MAP}"
        raise InputError(f"{source}: {role}_token is not a token: {token!r}")
    return text


def special_texts(settings: Json) -> dict[str, str]:
    """All special tokens by the names that chat templates know them by, as bos_token."""
    names = [key.removesuffix("_token") for key in settings if key.endswith("_token")]
    found = {name: settings[f"{name}_token"] for name in names}
    return {
        f"{name}_token": token["content"] if isinstance(token, Mapping) else token
        for name, token in found.items()
        if isinstance(token, str) or (isinstance(token, Mapping) and _has_text(token))
    }


def _has_text(token: Json) -> bool:
    return isinstance(token.get("content"), str)
