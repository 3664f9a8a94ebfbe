"""MLC's model definitions: what one computes from the config in an artifact, and its names.

Source: mlc_llm, `model/*/*_model.py` (config classes and modules) and `model/*/*_loader.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeproof.families.decoder import DecoderConfig, no_keys
from edgeproof.families.roles import Role
from edgeproof.families.structure import Structure, as_llama

# Linears that share their input become one, the first role's rows on top.
FUSIONS: Mapping[str, tuple[Role, ...]] = {
    "qkv_proj": (Role.QUERY, Role.KEY, Role.VALUE),
    "gate_up_proj": (Role.GATE, Role.UP),
}


@dataclass(frozen=True)
class MlcArchitecture:
    """One model definition.

    Attributes:
        name: `model_type` of mlc-chat-config.json.
        structure: what it computes, from what Llama's would and from `model_config`, which may lack
            keys (KeyError) or have bad values (TypeError, ValueError).
        keys: what `model_config` has beyond the keys that every model has.
    """

    name: str
    structure: Callable[[Structure, Mapping[str, Any]], Structure] = as_llama
    keys: Callable[[DecoderConfig], dict[str, Any]] = no_keys


def mlc_modules(names: Mapping[Role, str], structure: Structure) -> dict[Role, str]:
    """The modules of a model in MLC by role: the checkpoint's, but for what is fused."""
    modules = dict(names)
    for fused, roles in FUSIONS.items():
        if structure.gated or Role.GATE not in roles:
            modules |= {role: f"{names[role].rpartition('.')[0]}.{fused}" for role in roles}
    return modules
