"""A family of models: how its config.json is read, and how each format names what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeproof.families.decoder import DecoderConfig, Parameter
from edgeproof.families.dense import dense_parameters
from edgeproof.families.llama_cpp import LlamaCppArchitecture
from edgeproof.families.mlc import MlcArchitecture
from edgeproof.families.roles import Role


@dataclass(frozen=True)
class Family:
    """All that exporters and runtimes know of a family.

    Attributes:
        config: reads config.json: dimensions and structure. Raises InputError where it cannot.
        names: the checkpoint's modules by role; `{layer}` is a layer's number.
        llama_cpp: its architecture in llama.cpp; None where there is none.
        mlc: its model definition in MLC; None where there is none.
        mlc_differs: why MLC's own definition is not used, where `mlc` is None though it has one.
        assumed: ids of special tokens, by role (`bos`), that transformers' class has where
            config.json says nothing of them.
        fused: the checkpoint's module by role, of linear layers without a bias whose rows it has
            one after the other, in forward order, as llama.cpp's and MLC's have them; their `names`
            are what each would have alone.
        called: how a model of it is called that has no name of its own; None: its `model_type`.
    """

    config: Callable[[Mapping[str, Any]], DecoderConfig]
    names: Mapping[Role, str]
    llama_cpp: LlamaCppArchitecture | None
    mlc: MlcArchitecture | None
    assumed: Mapping[str, int] = field(default_factory=dict)
    fused: Mapping[Role, str] = field(default_factory=dict)
    called: str | None = None
    mlc_differs: str | None = None

    def parameters(self, config: DecoderConfig) -> tuple[Parameter, ...]:
        """Every tensor of the checkpoint, in forward order. Linear weights are [out, in]."""
        return dense_parameters(config, self.names, self.fused)
