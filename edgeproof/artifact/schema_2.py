"""Manifests of schema 2, in which a recipe was a list of pairs of strings, as those of schema 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from edgeproof.artifact.variant import Facts
from edgeproof.files.own import WrongJsonError

# ONNX: linear layers whose activations are rounded to 8 bits in every call.
DYNAMIC = ("int8", "uint8")


def upgraded(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The same content with the keys of schema 3: the pairs become the recipe, and facts follow.

    Raises:
        WrongJsonError: not a manifest of schema 2.
    """
    try:
        variant = raw["variant"]
        storage = dict(variant["storage"])
        facts = Facts(
            activations=storage.get("kv_cache"),
            residual_scale=float(storage.get("residual_scale", 1)),
            traced="engine" in storage,
            dynamic=storage.get("linear") in DYNAMIC,
        )
        return {
            **raw,
            "variant": {**variant, "recipe": storage, "facts": asdict(facts)},
            "recipe_digest": raw["recipe"],
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WrongJsonError("variant: not as schema 2 has it") from None
