"""Model libraries of the true structure, without a model: TVM itself compiles and serialises them.

TVM lays its executable into a WebAssembly object of its own (`devc.o`), with the two functions that
say what a library was compiled for; only emscripten's linking with the runtime is missing.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from edgeproof.families import DecoderConfig


def metadata(config: DecoderConfig, index: dict[str, Any], quantization: str) -> dict[str, Any]:
    """What mlc_llm's `_metadata` returns for the weights that `tensor-cache.json` lists."""
    parameters = [
        {"name": r["name"], "shape": list(r["shape"]), "dtype": r["dtype"], "preprocs": []}
        for shard in index["records"]
        for r in shard["records"]
    ]
    for parameter in parameters:  # mlc_llm leaves the vocabulary's size open
        if parameter["shape"][0] == config.vocab:
            parameter["shape"][0] = "vocab_size"
    return {
        "model_type": config.family,
        "quantization": quantization,
        "context_window_size": config.max_positions,
        "sliding_window_size": -1,
        "attention_sink_size": -1,
        "prefill_chunk_size": 128,
        "tensor_parallel_shards": 1,
        "params": parameters,
        "memory_usage": {"_metadata": 0, "prefill": 3 << 20, "decode": 1 << 20},
    }


def build_library(
    stated: dict[str, Any], *, heads: int, kv_heads: int, head_dim: int, theta: float
) -> bytes:
    """The bytes of a .wasm whose `_metadata` returns `stated`."""
    import tvm
    from tvm import relax
    from tvm.ir import StringImm

    builder = relax.BlockBuilder()
    with builder.function("_metadata", params=[]):
        builder.emit_func_output(StringImm(json.dumps(stated)))
    sizes = relax.Var("sizes", relax.ShapeType(ndim=6))
    layers = relax.ShapeExpr([0, 3])
    numbers = [relax.prim_value(number) for number in (heads, kv_heads, head_dim, head_dim)]
    # Whether it is distributed, rotary mode, rotary scale, rotary base, no extension factors.
    rest = [relax.prim_value(value) for value in (False, 1, 1, theta, 0)]
    with builder.function("create_tir_paged_kv_cache", params=[sizes]):
        cache = relax.call_pure_packed(
            "vm.builtin.paged_attention_kv_cache_create",
            *(sizes, layers, *numbers, relax.ShapeExpr([0, 0, 0]), *rest),
            relax.op.zeros((), "float16"),
            ty_args=relax.AnyType(),
        )
        builder.emit_func_output(builder.emit(cache))
    target = tvm.target.Target({"kind": "llvm", "mtriple": "wasm32-unknown-unknown"})
    built = relax.build(builder.finalize(), target=target, system_lib=False)
    with tempfile.TemporaryDirectory() as folder:
        built.export_library(f"{folder}/out", fcompile=_keep, workspace_dir=folder)
        return (Path(folder) / "devc.o").read_bytes()


def _keep(output: str, objects: list[str], **options: Any) -> None:
    """In place of the linker."""
