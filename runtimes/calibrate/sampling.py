"""Text from the model's own distribution: many rows at once, in memory that is taken once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from runtimes.calibrate.decoder import Decoder

FLOAT_BYTES = 4


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer in two buffers: growing copies nothing."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room

    def lazy_initialization(self, key_states: torch.Tensor, *others: Any) -> None:
        """Take the memory, shaped as the first keys [batch, heads, time, size]."""
        batch, heads, _, size = key_states.shape
        self.dtype, self.device = key_states.dtype, key_states.device
        self._buffers = key_states.new_empty(2, batch, heads, self._room, size)
        self.keys, self.values = self._buffers[:, :, :, :0]
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values; returns all there are."""
        if not self.is_initialized:
            self.lazy_initialization(key_states)
        begin = self.keys.shape[-2]
        end = begin + key_states.shape[-2]
        self._buffers[0, :, :, begin:end] = key_states
        self._buffers[1, :, :, begin:end] = value_states
        self.keys, self.values = self._buffers[:, :, :, :end]
        return self.keys, self.values


def row_bytes(decoder: Decoder, length: int) -> int:
    """What the keys and values of one row take."""
    config = decoder.config
    return 2 * config.layers * config.kv_heads * config.head_dim * length * FLOAT_BYTES


@torch.inference_mode()
def sample(
    decoder: Decoder,
    prompt: Sequence[int],
    rows: int,
    length: int,
    seed: int,
    advance: Callable[[int], None] = lambda tokens: None,
) -> list[list[int]]:
    """`rows` random texts of `length` tokens that begin with a prompt; `advance` counts tokens.

    From the model's own distribution (temperature 1, nothing cut off), past stop tokens. The same
    for the same seed, as far as the number of threads does not change a rounding.
    """
    generator = torch.Generator(decoder.device).manual_seed(seed)
    cache = Cache(layers=[PreallocatedLayer(length) for _ in range(decoder.config.layers)])
    ids = torch.tensor([list(prompt)[:length]] * rows, device=decoder.device)  # [rows, so far]
    last = ids
    while ids.shape[1] < length:
        hidden = decoder.hidden(decoder.embed(last), cache)[:, -1]
        chances = (hidden @ decoder.head.T).softmax(-1)  # [rows, V]
        advance(last.numel())
        last = torch.multinomial(chances, 1, generator=generator)
        ids = torch.cat((ids, last), 1)
    return [list(row) for row in ids.tolist()]
