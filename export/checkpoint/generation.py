"""What a checkpoint says about generating text: the ids that end it, and how to sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# As the SmolLM cards recommend it, where generation_config.json says nothing else.
TEMPERATURE = 0.2
TOP_P = 0.9

Json = Mapping[str, Any]


def special_ids(
    generation: Json, config: Json, settings: Json, added: Mapping[str, int]
) -> dict[str, Any]:
    """pad, bos and eos ids: of generation_config.json, else config.json, else the tokenizer.

    `settings` is tokenizer_config.json, `added` maps the text of added tokens to their ids. A value
    is an id, a list of ids, or None where nothing names one.
    """
    ids: dict[str, Any] = {}
    for kind in ("pad", "bos", "eos"):
        token = settings.get(f"{kind}_token")
        text = token["content"] if isinstance(token, dict) else token
        candidates = (
            generation.get(f"{kind}_token_id"),
            config.get(f"{kind}_token_id"),
            added.get(text) if isinstance(text, str) else None,
        )
        ids[f"{kind}_token_id"] = next((item for item in candidates if item is not None), None)
    return ids


def number(value: Any, default: float) -> float:
    """A setting that may be absent or null."""
    return value if isinstance(value, (int, float)) else default
