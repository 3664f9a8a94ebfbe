"""Mistakes that no file has: a runtime is told, or built, to compute something else.

Each is planted through the adapter: what it asks of its library while an artifact is compared is
another thing. Some settings are harmless, and nothing may be said of them.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import llama_cpp
import numpy as np
import tvm

from runtimes.llamacpp import LlamaCpp
from runtimes.parity.localise import Cause
from runtimes.tvm import runtime as tvm_runtime
from tests.faults.fault import AtRunTime, Fault, Finds, Plant

GGML_TYPE_F16, GGML_TYPE_Q4_0 = 1, 2  # ggml.h
# Positions are squeezed by this.
SQUEEZE = 0.25
THETA = 10_000.0
# A context this long is shifted by a quarter: so many tokens are dropped, but not the first.
SHIFTED_CONTEXT, DROPPED, FIRST_KEPT = 40, 10, 4
BITS = 4


def context_option(**options: Any) -> AtRunTime:
    """llama.cpp's contexts get other parameters (`llama_context_params`)."""
    made = llama_cpp.llama_init_from_model

    def init(model: Any, params: Any) -> Any:
        for name, value in options.items():
            setattr(params, name, value)
        return made(model, params)

    return lambda: mock.patch.object(llama_cpp, "llama_init_from_model", init)


def not_causal() -> Any:
    """llama.cpp attends to all tokens of a batch, as it does for embeddings."""
    made = llama_cpp.llama_init_from_model

    def init(model: Any, params: Any) -> Any:
        context = made(model, params)
        if context:
            llama_cpp.llama_set_causal_attn(context, False)
        return context

    return mock.patch.object(llama_cpp, "llama_init_from_model", init)


@contextlib.contextmanager
def shifted_early() -> Iterator[None]:
    """The context shift of llama.cpp's server, long before the context is full.

    Some tokens after the first are dropped from the KV cache, and those behind them move up.
    """
    decode, dropped = LlamaCpp._decode, defaultdict[int, int](int)

    def _decode(self: Any, ids: Any, positions: Any, sequences: Any, wanted: Any) -> Any:
        memory = llama_cpp.llama_get_memory(self._context)
        moved = np.array(positions)
        for sequence in map(int, np.unique(sequences)):
            rows = sequences == sequence
            first = int(positions[rows].min())
            if first == 0:
                dropped[sequence] = 0
            elif first - dropped[sequence] >= SHIFTED_CONTEXT:
                end = FIRST_KEPT + DROPPED
                llama_cpp.llama_memory_seq_rm(memory, sequence, FIRST_KEPT, end)
                llama_cpp.llama_memory_seq_add(memory, sequence, end, -1, -DROPPED)
                dropped[sequence] += DROPPED
            moved[rows] -= dropped[sequence]
        return decode(self, ids, moved, sequences, wanted)

    with mock.patch.object(LlamaCpp, "_decode", _decode):
        yield


def tvm_positions_squeezed() -> Any:
    """The rotary tables that TVM's decoder is given are those of a longer context."""
    tables = tvm_runtime.rotation_tables

    def squeezed(head_dim: int, rope: Any, positions: int) -> tuple[Any, ...]:
        angles = (table.numpy() for table in tables(head_dim, rope, positions))
        kept = np.arange(positions) * SQUEEZE
        return tuple(tvm.runtime.tensor(rows[kept.astype(int)]) for rows in angles)

    return mock.patch.object(tvm_runtime, "rotation_tables", squeezed)


def tvm_cache_moved() -> Any:
    """Every call after a sequence's first writes its keys and values one position early."""
    layers = tvm_runtime.TvmRuntime._layers

    def moved(self: Any, ids: np.ndarray, start: int) -> Any:
        return layers(self, ids, max(start - 1, 0))

    return mock.patch.object(tvm_runtime.TvmRuntime, "_layers", moved)


def tvm_cache_rounded() -> Any:
    """Keys and values are kept in 4 bits, one scale for each token and head."""
    layers = tvm_runtime.TvmRuntime._layers

    def rounded(self: Any, ids: np.ndarray, start: int) -> Any:
        hidden = layers(self, ids, start)
        lanes = self._cache[0][0].shape[-1]
        blocks = slice(start // lanes, (start + len(ids) - 1) // lanes + 1)
        for keys, values in self._cache:
            _round_in_place(np.from_dlpack(keys)[blocks], axis=2)  # [blocks, heads, dim, lanes]
            _round_in_place(np.from_dlpack(values)[blocks], axis=3)  # [blocks, lanes, heads, dim]
        return hidden

    return mock.patch.object(tvm_runtime.TvmRuntime, "_layers", rounded)


def _round_in_place(values: np.ndarray, axis: int) -> None:
    """To 15 levels along an axis. What is rounded already stays."""
    scale = np.abs(values).max(axis, keepdims=True) / (2 ** (BITS - 1) - 1)
    scale[~(scale > 0) | ~np.isfinite(scale)] = 1
    values[:] = np.rint(values / scale) * scale


def _fault(
    name: str, what: str, form: str, runtime: Callable[[], Any], finds: Finds | None = None
) -> Fault:
    """`finds` is None for a setting that does no harm."""
    plant = Plant(finds or Finds(Cause.NONE), runtime=runtime)
    return Fault(name, what, {form: plant}, harmless=finds is None)


AT_RUN_TIME = (
    _fault(
        "llama.cpp: rope frequency scale",
        "`rope_freq_scale` 0.25: positions are squeezed together, whatever the file says",
        "gguf",
        context_option(rope_freq_scale=SQUEEZE),
        Finds(Cause.GRAPH, 0),
    ),
    _fault(
        "llama.cpp: rope frequency base",
        "`rope_freq_base` 10,000, another than the file's",
        "gguf",
        context_option(rope_freq_base=THETA),
        Finds(Cause.GRAPH, 0),
    ),
    _fault(
        "llama.cpp: attention not causal",
        "`llama_set_causal_attn` off, as for embeddings",
        "gguf",
        not_causal,
        Finds(Cause.GRAPH, 0),
    ),
    _fault(
        "llama.cpp: KV cache in 4 bits",
        "keys and values as Q4_0, which takes flash attention",
        "gguf",
        context_option(
            type_k=GGML_TYPE_Q4_0,
            type_v=GGML_TYPE_Q4_0,
            flash_attn_type=llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        ),
        Finds(Cause.GRAPH, 0),
    ),
    _fault(
        "llama.cpp: context shifted early",
        "tokens are dropped from the KV cache and others moved up, as if a short context were full",
        "gguf",
        shifted_early,
        Finds(Cause.KV_CACHE),
    ),
    _fault(
        "llama.cpp: flash attention",
        "sums in another order",
        "gguf",
        context_option(flash_attn_type=llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED),
    ),
    _fault(
        "llama.cpp: KV cache in 16 bits",
        "llama.cpp's own default",
        "gguf",
        context_option(type_k=GGML_TYPE_F16, type_v=GGML_TYPE_F16),
    ),
    _fault(
        "llama.cpp: nothing offloaded",
        "`offload_kqv` and `op_offload` off: on a CPU there is nowhere to",
        "gguf",
        context_option(offload_kqv=False, op_offload=False),
    ),
    _fault(
        "TVM: positions squeezed",
        "the rotary tables are those of a context four times as long",
        "mlc",
        tvm_positions_squeezed,
        Finds(Cause.GRAPH, 0),
    ),
    _fault(
        "TVM: cache moved",
        "every call after the first writes keys and values one position early",
        "mlc",
        tvm_cache_moved,
        Finds(Cause.KV_CACHE),
    ),
    _fault(
        "TVM: KV cache in 4 bits",
        "keys and values are rounded once a call has used them",
        "mlc",
        tvm_cache_rounded,
        Finds(Cause.KV_CACHE),
    ),
)
