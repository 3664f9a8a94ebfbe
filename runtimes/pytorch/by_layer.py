"""Many texts through a model one layer at a time, in transformers' own code.

The model's loop over its layers is run with stand-ins in their place, which note how each layer is
called; then each layer is called so for every text, and in the end the loop is run once more, to
have what follows the layers. A text's pieces go through a layer in order, with its keys and values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import transformers

# What follows the hidden states in a layer's call: positional and named.
Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class _Piece:
    """Some tokens of a text [1, n], how layers are called for them, and what the last one gave."""

    ids: torch.Tensor
    cache: Any
    calls: list[Call] = field(default_factory=list)
    hidden: Any = None


class _StandIn(torch.nn.Module):
    """In a layer's place: gives `given` as the layer's result, or what it gets."""

    def __init__(self, layer: Any, piece: _Piece, given: Any = None) -> None:
        super().__init__()
        self._of, self._piece, self._given = (layer,), piece, given

    def __getattr__(self, name: str) -> Any:
        """What transformers' loop asks of a layer."""
        return getattr(self.__dict__["_of"][0], name)

    def forward(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Note the call."""
        if self._given is not None:
            return self._given
        if not self._piece.calls:
            self._piece.hidden = hidden
        self._piece.calls.append((args, kwargs))
        return hidden


@torch.inference_mode()
def hidden_by_layer(
    base: Any,
    texts: Sequence[Sequence[np.ndarray]],
    staying: Callable[[Any], AbstractContextManager[None]],
    aside: Callable[[], AbstractContextManager[None]],
    device: torch.device,
) -> list[torch.Tensor]:
    """What a base model gives for texts, each in pieces [n] of ids: [T, H] each.

    A layer is called while it is `staying`; what is run `aside` is no text's.
    """
    groups = []
    for text in texts:
        cache = transformers.DynamicCache()
        groups.append([_Piece(torch.from_numpy(ids)[None].to(device), cache) for ids in text])
    for index, layer in enumerate([*base.layers]):
        with staying(layer):
            for group in groups:
                for piece in group:
                    if not index:  # by now the cache has what comes before
                        with aside(), _stand_ins(base, piece):
                            _run(base, piece.ids, piece.cache)
                    args, kwargs = piece.calls[index]
                    piece.hidden = layer(piece.hidden, *args, **kwargs)
                _free(group[0].cache, index)
    return [torch.cat([_ended(base, piece) for piece in group]) for group in groups]


def _ended(base: Any, piece: _Piece) -> torch.Tensor:
    piece.calls.clear()
    with _stand_ins(base, piece, piece.hidden):
        hidden: torch.Tensor = _run(base, piece.ids, transformers.DynamicCache())[0]
    return hidden


@contextlib.contextmanager
def _stand_ins(base: Any, piece: _Piece, given: Any = None) -> Iterator[None]:
    layers = base.layers
    base.layers = torch.nn.ModuleList(_StandIn(layer, piece, given) for layer in layers)
    try:
        yield
    finally:
        base.layers = layers


def _run(base: Any, ids: torch.Tensor, cache: Any) -> torch.Tensor:
    hidden: torch.Tensor = base(
        input_ids=ids, past_key_values=cache, use_cache=True
    ).last_hidden_state
    return hidden


def _free(cache: Any, index: int) -> None:
    """Nobody asks for a layer's keys and values once all of a text went through it."""
    cache.layers[index].keys = cache.layers[index].values = None
