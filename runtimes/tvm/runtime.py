"""The adapter: tokens in, logits out, over the compiled decoder and its KV cache.

Invariant: the cache's first `length` positions are the current sequence, and what lies behind them
is never read: a new sequence need not clear it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tvm
from tokenizers import Tokenizer
from tvm.runtime import ShapeTuple

from edgeproof.artifact import Artifact
from edgeproof.errors import DamagedExportError
from edgeproof.families.rope import Rope, scaled_frequencies
from runtimes.sequence import SequenceRuntime
from runtimes.special_ids import special_ids
from runtimes.threads import processors
from runtimes.tvm.decoder import parameters
from runtimes.tvm.kernels import LANES, ROWS, panels
from runtimes.tvm.library import open_decoder, open_loader, open_probe
from runtimes.tvm.model_config import (
    DecoderShape,
    read_begin_token,
    read_model_config,
    read_stop_tokens,
)
from runtimes.tvm.probe import watched_states
from runtimes.tvm.weights import find_weights

# Positions per prefill call: enough that a layer's weights are read from memory rarely, few enough
# that the activations stay in the processor's cache. A multiple of ROWS.
CHUNK = 16 * ROWS
# TVM's thread pool: any thread may run on any of the processors given. Every other mode pins the
# calling thread too, and threads that PyTorch starts later would inherit that.
SHARE_PROCESSORS = -3


class TvmRuntime(SequenceRuntime):
    """A `runtimes.protocol.Runtime` on TVM. Use `runtimes.tvm.open_runtime`."""

    name = "tvm"
    version: str = tvm.__version__
    device = "cpu"

    def __init__(self, artifact: Artifact, threads: int) -> None:
        shape, scheme = read_model_config(artifact.path)
        self.vocabulary, self.context = shape.vocab, shape.context
        self._shape, self._dtype = shape, scheme.dtype
        self._tokenizer = _open_tokenizer(artifact)
        self.begin_token = read_begin_token(artifact.path)
        self.stop_tokens = read_stop_tokens(artifact.path)
        self.special_tokens = special_ids(self._tokenizer)
        stored = find_weights(artifact.path, parameters(shape, scheme.dtype), shape.layers, scheme)
        use_threads(threads)
        self._library: Any = open_decoder(shape, scheme.dtype)
        self._weights = stored.load(open_loader(scheme))
        blocks = panels(shape.context)
        tables = {
            rope: rotation_tables(shape.head_dim if rope else shape.rotated, rope, blocks * LANES)
            for rope in shape.structure.ropes
        }
        self._rotation = [tables[layer.rope] for layer in shape.structure.layers]
        self._cache = [_empty_cache(shape, blocks) for _ in range(shape.layers)]

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`, special tokens in the text parsed, none added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def states(self, ids: Sequence[int]) -> dict[str, np.ndarray]:
        """What happens inside one new sequence of at most `chunk` tokens: float32 [T, width] each.

        By module, as `probe.watched_states`; `<layer>.input` and `model.norm.input` are the
        residual stream before a layer and the last norm, `<attention>.k_rope` the keys kept.
        """
        (tokens,) = self._begin(ids)
        probe: Any = open_probe(self._shape, self._dtype)
        hidden = self._library["embed"](tvm.runtime.tensor(tokens.astype("i4")), self._weights[0])
        states = {}
        for number, (rotation, cache, weights) in enumerate(self._each_layer()):
            layer = f"model.layers.{number}"
            states[f"{layer}.input"] = hidden.numpy()
            hidden, *inside = probe["watch_layer"](
                hidden, ShapeTuple([0]), *rotation, *cache, weights
            )
            for name, values in zip(watched_states(self._shape), inside, strict=True):
                states[f"{layer}.{name}"] = values.numpy()
            keys = cache[0].numpy().transpose(0, 3, 1, 2)  # [blocks, lanes, kv heads, head_dim]
            states[f"{layer}.self_attn.k_rope"] = keys.reshape(-1, *keys.shape[2:])[
                : len(tokens)
            ].reshape(len(tokens), -1)
        return {**states, "model.norm.input": hidden.numpy()}

    def close(self) -> None:
        """Free the weights, the KV cache and the memory that TVM keeps for activations."""
        self._weights, self._cache, self._rotation, self._library = (), [], [], None
        tvm.get_global_func("vm.builtin.memory_manager.clear")()

    def _clear(self) -> None:
        """Nothing to do: positions behind `length` are never read."""

    def _cut(self, length: int) -> bool:
        return True  # as for `_clear`

    def _extend(self, ids: np.ndarray, every: bool) -> np.ndarray:
        rows = []
        for begin in range(0, len(ids), CHUNK):
            hidden = self._layers(ids[begin : begin + CHUNK], self.length + begin)
            if every:
                rows.append(self._head(hidden))
        if not every:
            rows = [self._head(tvm.runtime.tensor(hidden.numpy()[-1:]))]
        return np.concatenate(rows) if len(rows) > 1 else rows[0]

    def _layers(self, ids: np.ndarray, start: int) -> Any:
        """Run all layers over positions from `start`: hidden states float32 [n, hidden]."""
        hidden = self._library["embed"](tvm.runtime.tensor(ids.astype("i4")), self._weights[0])
        layer = self._library["run_layer"]
        for rotation, cache, weights in self._each_layer():
            hidden = layer(hidden, ShapeTuple([start]), *rotation, *cache, weights)
        return hidden

    def _each_layer(self) -> Iterator[tuple[Any, Any, Any]]:
        """Rotary tables, KV cache and weights of each layer."""
        return zip(self._rotation, self._cache, self._weights, strict=True)

    def _head(self, hidden: Any) -> np.ndarray:
        """Logits float32 [n, V] of hidden states."""
        logits: np.ndarray = self._library["project"](hidden, self._weights[0]).numpy()
        return logits


def use_threads(count: int) -> None:
    """Size TVM's thread pool: `count` threads, the calling one included, at most one a processor.

    TVM's own default is half the processors, on the guess that they are hyperthreads.
    """
    tvm.get_global_func("runtime.config_threadpool")(
        SHARE_PROCESSORS, count, [str(processor) for processor in processors()]
    )


def rotation_tables(head_dim: int, rope: Rope | None, positions: int) -> tuple[Any, Any]:
    """Cosine and sine, float32 [positions, rotated / 2], in transformers' float32 arithmetic.

    Without a rotary embedding, those of no rotation of all channels.
    """
    frequencies, amplitude = np.zeros(head_dim // 2, np.float32), np.float32(1)
    if rope is not None:
        frequencies = scaled_frequencies(head_dim, rope)
        amplitude = np.float32(rope.amplitude)
    angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies  # [positions, half]
    cosine, sine = np.cos(angles) * amplitude, np.sin(angles) * amplitude
    return tvm.runtime.tensor(cosine), tvm.runtime.tensor(sine)


def _empty_cache(shape: DecoderShape, blocks: int) -> tuple[Any, Any]:
    """Keys and values of one layer; the system commits their pages when they are written."""
    keys = (blocks, shape.kv_heads, shape.head_dim, LANES)
    values = (blocks, LANES, shape.kv_heads, shape.head_dim)
    return tvm.runtime.empty(keys, "float32"), tvm.runtime.empty(values, "float32")


def _open_tokenizer(artifact: Artifact) -> Tokenizer:
    path = artifact.file("tokenizer.json")
    if not path.is_file():
        raise DamagedExportError(f"{path}: missing")
    return Tokenizer.from_file(str(path))
