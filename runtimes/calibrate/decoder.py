"""A checkpoint in PyTorch for calibration: transformers' own model, and what its matrices do.

Unlike the reference (`runtimes.pytorch`), attention is PyTorch's fused one, which takes a third of
the time and no memory for scores; values differ by rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgeproof.checkpoints.config import settled
from edgeproof.errors import InputError
from edgeproof.families import DecoderConfig, Parameter, Role, read_config, rows_held
from edgeproof.json_text import parse_json
from runtimes.memory import return_large_blocks
from runtimes.pytorch.loading import load_model

MATRICES = frozenset(
    {
        Role.EMBEDDING, Role.QUERY, Role.KEY, Role.VALUE, Role.OUTPUT,
        Role.GATE, Role.UP, Role.DOWN, Role.HEAD,
    }
)  # fmt: skip
TABLES = frozenset({Role.EMBEDDING, Role.HEAD})
# Of a recovery's many matrices of some megabytes: to take each anew from the system is a sixth of
# its time.
RETURNED_BYTES = 32 << 20


@dataclass(frozen=True)
class Share:
    """The rows of a parameter of transformers' model that are one of ours; most often all."""

    parameter: torch.nn.Parameter
    rows: slice

    @property
    def values(self) -> torch.Tensor:
        """A view of its values."""
        return self.parameter.data[self.rows]

    @property
    def gradient(self) -> torch.Tensor:
        """A view of its gradient, to which a step's is added."""
        if self.parameter.grad is None:
            self.parameter.grad = torch.zeros_like(self.parameter)
        return self.parameter.grad[self.rows]


class Decoder:
    """A model in float32, frozen. Use `open_decoder`."""

    def __init__(
        self, config: DecoderConfig, parameters: tuple[Parameter, ...], model: Any
    ) -> None:
        self.config = config
        self.parameters = {p.name: p for p in parameters}
        self.model = model

    @property
    def layer_matrices(self) -> list[Parameter]:
        """The linear layers' weights, in forward order, without embedding and head."""
        wanted = MATRICES - TABLES
        return [p for p in self.parameters.values() if p.role in wanted]

    @property
    def shares(self) -> dict[str, Share]:
        """Where the model has each parameter, by name."""
        own, rows = dict(self.model.named_parameters()), rows_held(self.parameters.values())
        return {p.name: Share(own[p.holder], rows[p.name]) for p in self.parameters.values()}

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.output.device

    @property
    def output(self) -> torch.nn.Parameter:
        """The weight of the output matrix [V, hidden]; `head` is what it is multiplied as."""
        weight: torch.nn.Parameter = self.model.get_output_embeddings().weight
        return weight

    @property
    def logits_factor(self) -> float:
        """What logits are multiplied with."""
        return self.config.structure.multipliers.logits

    @property
    def head(self) -> torch.Tensor:
        """The output matrix [V, hidden]: logits = hidden · headᵀ."""
        return self.output if self.logits_factor == 1 else self.output * self.logits_factor

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """The embedding's rows of tokens [batch, time], as stored: [batch, time, hidden]."""
        return torch.nn.functional.embedding(ids, self.model.get_input_embeddings().weight)

    def hidden(self, embedded: torch.Tensor, cache: Any = None) -> torch.Tensor:
        """What enters the head, of rows [batch, time, hidden] after those in the cache."""
        # Gemma's embedding scales what it looks up; of other models the decoder does, if any.
        scale = getattr(self.model.get_input_embeddings(), "embed_scale", None)
        if scale is not None:
            embedded = embedded * scale
        output = self.model.base_model(
            inputs_embeds=embedded, past_key_values=cache, use_cache=cache is not None
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def assign(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Give the model other values, by Hugging Face name; a tied head is the embedding."""
        shares = self.shares
        for name, values in weights.items():
            shares[name].values.copy_(values)


def open_decoder(checkpoint: Path, threads: int) -> Decoder:
    """Open a checkpoint folder in float32. `threads` is PyTorch's setting for the whole process.

    Raises:
        InputError: an unknown architecture, or one that transformers cannot load.
    """
    config, parameters = read_structure(checkpoint)
    torch.set_num_threads(threads)
    return_large_blocks(RETURNED_BYTES)
    model = load_model(checkpoint)
    model.set_attn_implementation("sdpa")
    return Decoder(config, parameters, model)


def read_structure(checkpoint: Path) -> tuple[DecoderConfig, tuple[Parameter, ...]]:
    """Config and parameters of a checkpoint folder.

    Raises:
        InputError: no config.json, or of no family that is known.
    """
    path = checkpoint / "config.json"
    try:
        raw = parse_json(path.read_text("utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{path}: cannot be read; is this a checkpoint folder?") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: expected a JSON object")
    return read_config(settled(raw))
