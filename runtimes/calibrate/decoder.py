"""A checkpoint in PyTorch for calibration: transformers' own model, and what its matrices do.

Unlike the reference (`runtimes.pytorch`), attention is PyTorch's fused one, which takes a third of
the time and no memory for scores; values differ by rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edgeproof.checkpoints.config import settled
from edgeproof.errors import InputError
from edgeproof.families import DecoderConfig, Parameter, Role, read_config
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
    def device(self) -> torch.device:
        """Where it computes."""
        return self.head.device

    @property
    def head(self) -> torch.Tensor:
        """The output matrix [V, hidden]: logits = hidden · headᵀ."""
        weight: torch.Tensor = self.model.get_output_embeddings().weight
        factor = self.config.structure.multipliers.logits
        return weight if factor == 1 else weight * factor

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """The embedding's rows of tokens [batch, time]: [batch, time, hidden]."""
        return torch.nn.functional.embedding(ids, self.model.get_input_embeddings().weight)

    def hidden(self, embedded: torch.Tensor, cache: Any = None) -> torch.Tensor:
        """What enters the head, of rows [batch, time, hidden] after those in the cache."""
        output = self.model.base_model(
            inputs_embeds=embedded, past_key_values=cache, use_cache=cache is not None
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def assign(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Give the model other values, by Hugging Face name; a tied head is the embedding."""
        own = dict(self.model.named_parameters())
        for name, values in weights.items():
            own[name].data.copy_(values)


def open_decoder(checkpoint: Path, threads: int) -> Decoder:
    """Open a checkpoint folder in float32. `threads` is PyTorch's setting for the whole process.

    Raises:
        InputError: an unknown architecture, or one that transformers cannot load.
    """
    config, parameters = read_structure(checkpoint)
    torch.set_num_threads(threads)
    return_large_blocks()
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
