"""The registry of model families: `model_type` of config.json → that family's table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeproof.errors import InputError
from edgeproof.families import llama, mistral, qwen2, qwen3
from edgeproof.families.decoder import DecoderConfig, Parameter


@dataclass(frozen=True)
class Family:
    """How to read a family's config.json and which parameters it implies."""

    config: Callable[[Mapping[str, Any]], DecoderConfig]
    parameters: Callable[[DecoderConfig], tuple[Parameter, ...]]


FAMILIES: dict[str, Family] = {
    "llama": Family(llama.config, llama.parameters),
    "mistral": Family(mistral.config, mistral.parameters),
    "qwen2": Family(qwen2.config, qwen2.parameters),
    "qwen3": Family(qwen3.config, qwen3.parameters),
}


def read_config(raw: Mapping[str, Any]) -> tuple[DecoderConfig, tuple[Parameter, ...]]:
    """Config and parameter table of a parsed config.json.

    Raises:
        InputError: unknown architecture, or a config that the family cannot express.
    """
    model_type = raw.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise InputError(f"unknown architecture {model_type!r}; supported: {known}")
    config = family.config(raw)
    return config, family.parameters(config)
