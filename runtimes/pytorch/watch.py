"""Watch the places of a model where values may overflow float16, by hooks that change nothing."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch

from runtimes.norms import out_norms
from runtimes.peaks import Peak, Place, largest

LAYER = re.compile(r"\.layers\.(\d+)\.")
WHOLE_LAYER = re.compile(r".*\.layers\.\d+")
HEAD_NORMS = ("q_norm", "k_norm")
# What an attention module of transformers has; of one without, scores are not bounded.
ATTENTION = ("q_proj", "k_proj", "scaling", "head_dim")
FUSED_ATTENTION = ("qkv_proj", "scaling", "head_dim", "config")

Where = tuple[Place, int | None]


class Watch:
    """The peaks of everything that the watched models have run yet.

    Of attention scores the upper bound that the lengths of queries and keys give: rotary embeddings
    keep lengths, or make all larger alike, and a product is at most that of its factors' lengths.
    """

    def __init__(self) -> None:
        self._values: dict[Where, torch.Tensor] = {}
        self._lengths: dict[tuple[int | None, str], torch.Tensor] = {}
        self._scales: dict[int | None, float] = {}

    @property
    def peaks(self) -> tuple[Peak, ...]:
        """The largest of each place."""
        found = [Peak(place, layer, float(v)) for (place, layer), v in self._values.items()]
        for layer, scale in self._scales.items():
            if (layer, "q") in self._lengths and (layer, "k") in self._lengths:
                found.append(Peak(Place.SCORES, layer, scale * self._longest(layer)))
        return largest(found)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """What is run meanwhile is watched on its own, and does not count afterwards."""
        before = self._values, self._lengths
        self._values, self._lengths = {}, {}
        try:
            yield
        finally:
            self._values, self._lengths = before

    def add(self, model: Any) -> None:
        """Watch a model from now on.

        Norms after attention and MLP take what these give; of a model with such norms the residual
        stream is what enters its layers, which may have no norm there.
        """
        after = {name.removesuffix(".weight") for name in out_norms(model.config.to_dict())}
        rotary = getattr(model.base_model, "rotary_emb", None)
        longer = float(getattr(rotary, "attention_scaling", 1.0)) ** 2
        for name, module in model.named_modules():
            layer = _layer(name)
            if "norm" in type(module).__name__.lower():
                place = Place.OUTPUTS if name in after else Place.STREAM
                place = Place.HEADS if name.endswith(HEAD_NORMS) else place
                module.register_forward_pre_hook(self._inputs((place, layer)))
            elif after and WHOLE_LAYER.fullmatch(name):
                module.register_forward_pre_hook(self._inputs((Place.STREAM, layer)))
            elif name.endswith("down_proj"):
                module.register_forward_pre_hook(self._inputs((Place.PRODUCT, layer)))
            if all(hasattr(module, name) for name in ATTENTION):
                self._scales[layer] = float(module.scaling) * longer
                for part in ("q", "k"):
                    last = getattr(module, f"{part}_norm", getattr(module, f"{part}_proj"))
                    last.register_forward_hook(self._heads((layer, part), module.head_dim))
            elif all(hasattr(module, name) for name in FUSED_ATTENTION):
                self._scales[layer] = float(module.scaling) * longer
                first, size = 0, module.head_dim
                counts = {"q": module.config.num_attention_heads}
                counts["k"] = module.config.num_key_value_heads
                for part, count in counts.items():
                    columns = slice(first, first := first + count * size)
                    module.qkv_proj.register_forward_hook(self._heads((layer, part), size, columns))

    def _inputs(self, where: Where) -> Callable[..., None]:
        def watch(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            self._values[where] = _larger(self._values.get(where), inputs[0].abs().max())

        return watch

    def _heads(
        self, key: tuple[int | None, str], size: int, columns: slice = slice(None)
    ) -> Callable[..., None]:
        def watch(
            _: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
        ) -> None:
            tokens = output.transpose(1, 2) if _heads_first(inputs[0]) else output
            taken = tokens[..., columns].flatten(0, 1)
            rows = taken.reshape(len(taken), -1, size)  # [tokens, heads, d]
            lengths = torch.linalg.vector_norm(rows, dim=-1).amax(0)  # [heads]
            self._lengths[key] = _larger(self._lengths.get(key), lengths)

        return watch

    def _longest(self, layer: int | None) -> float:
        queries, keys = self._lengths[layer, "q"], self._lengths[layer, "k"]
        return float((queries.reshape(len(keys), -1) * keys[:, None]).max())


def _heads_first(x: torch.Tensor) -> bool:
    """Whether it is [batch, heads, tokens, d], a view of [batch, tokens, heads, d], as Gemma's."""
    if x.ndim < 4:
        return False
    return x.stride(1) < x.stride(2) or (x.stride(1) == x.stride(2) and x.shape[1] == 1)


def _larger(before: torch.Tensor | None, now: torch.Tensor) -> torch.Tensor:
    return now if before is None else torch.maximum(before, now)


def _layer(name: str) -> int | None:
    found = LAYER.search(f"{name}.")
    return int(found[1]) if found else None
