"""The families: ours, and those that other packages bring.

A package brings a family by an entry point of the group `edgeproof.families`, whose name is the
`model_type` of config.json and whose object is a `Family`. Ours come first and cannot be replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeproof import plugins
from edgeproof.errors import InputError
from edgeproof.families import gemma3, granite, llama, mistral, olmo2, phi3, qwen2, qwen3, smollm3
from edgeproof.families.decoder import DecoderConfig, Parameter
from edgeproof.families.family import Family

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "edgeproof.families"
OURS: dict[str, Family] = {
    "gemma3_text": gemma3.FAMILY,
    "granite": granite.FAMILY,
    "llama": llama.FAMILY,
    "mistral": mistral.FAMILY,
    "olmo2": olmo2.FAMILY,
    "phi3": phi3.FAMILY,
    "qwen2": qwen2.FAMILY,
    "qwen3": qwen3.FAMILY,
    "smollm3": smollm3.FAMILY,
}


# Decoders of which only some layers attend: what else there is, by `model_type`.
HYBRID = {
    "lfm2": "short convolutions",
    "qwen3_5": "linear attention",
    "qwen3_5_text": "linear attention",
    "qwen3_next": "linear attention",
    "granitemoehybrid": "state space layers",
}

# Models of text and images, by `model_type` → the family of the decoder that is in them.
WITH_IMAGES = {"gemma3": "gemma3_text"}


def known_families() -> list[str]:
    """Their names, ours first."""
    return [*OURS, *_brought()]


def family(name: str) -> Family:
    """The family of that name.

    Raises:
        InputError: there is none, or what a package brings cannot be loaded or is no Family.
    """
    if name in OURS:
        return OURS[name]
    point = _brought().get(name)
    if point is None:
        raise _unknown(name)
    return plugins.load(point, Family)


def mlc_names() -> list[str]:
    """The model definitions in MLC of all families, each once.

    Raises:
        InputError: as for `family`.
    """
    found = (family(name).mlc for name in known_families())
    return list(dict.fromkeys(architecture.name for architecture in found if architecture))


def mlc_family(model_type: str) -> Family | None:
    """The first family whose model definition in MLC has that name.

    Raises:
        InputError: as for `family`.
    """
    families = (family(name) for name in known_families())
    return next((found for found in families if found.mlc and found.mlc.name == model_type), None)


def read_config(raw: Mapping[str, Any]) -> tuple[DecoderConfig, tuple[Parameter, ...]]:
    """Config and parameter table of a parsed config.json.

    Raises:
        InputError: unknown architecture, or a config that the family cannot express.
    """
    model_type = raw.get("model_type")
    if not isinstance(model_type, str):
        raise _unknown(model_type)
    found = family(model_type)
    config = found.config(raw)
    return config, found.parameters(config)


def assumed_ids(raw: Mapping[str, Any]) -> Mapping[str, int]:
    """The family's `assumed` ids; none of an architecture that is not known here."""
    name = raw.get("model_type")
    try:
        return family(name).assumed if isinstance(name, str) else {}
    except InputError:
        return {}


def family_name(raw: Mapping[str, Any]) -> str:
    """How a model of that config is called that has no name of its own."""
    name = raw.get("model_type")
    try:
        return (family(name).called if isinstance(name, str) else None) or str(name)
    except InputError:
        return str(name)


def _unknown(name: object) -> InputError:
    known = ", ".join(sorted(known_families()))
    other = HYBRID.get(name) if isinstance(name, str) else None
    if other:
        return InputError(
            f"architecture {name!r} is a hybrid of attention and {other}, which is not exported;"
            f" supported: {known}"
        )
    text = WITH_IMAGES.get(name) if isinstance(name, str) else None
    if text:
        return InputError(
            f"architecture {name!r} takes images too, which is not exported; save its decoder alone"
            f" ({text}); supported: {known}"
        )
    return InputError(f"unknown architecture {name!r}; supported: {known}")


def _brought() -> dict[str, EntryPoint]:
    return plugins.brought(GROUP, OURS)
