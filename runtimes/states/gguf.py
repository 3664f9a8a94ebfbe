"""Hidden states in llama.cpp, through the callback that its scheduler calls after every operation.

Names of the graph's tensors are those of llama.cpp's `src/models/*.cpp` ("Qcur-3", "l_out-3"). One
name is given to several tensors of a chain: which one counts is in the table.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from runtimes.gguf_file import read_metadata
from runtimes.llamacpp import GGML_TYPE_F32, LlamaCpp
from runtimes.states import LAST_NORM, LOGITS, residual
from runtimes.weights.fused import split
from runtimes.weights.gguf import ROTATED_BY, split_rotary_pairs

BEFORE_ROPE, LAST = -2, -1
# Of the tensors with this name in a layer, which one → the state's name in the layer. Later lines
# replace earlier ones: those with biases are there only where the model has them.
LAYER_STATES = (
    ("attn_norm", LAST, "input_layernorm"),
    ("Qcur", BEFORE_ROPE, "self_attn.q_proj"),
    ("Kcur", BEFORE_ROPE, "self_attn.k_proj"),
    ("Vcur", LAST, "self_attn.v_proj"),
    ("Qcur_normed", LAST, "self_attn.q_norm"),
    ("Kcur_normed", LAST, "self_attn.k_norm"),
    ("Qcur", LAST, "self_attn.q_rope"),
    ("Kcur", LAST, "self_attn.k_rope"),
    ("kqv_out", LAST, "self_attn.o_proj.input"),
    ("attn_out", LAST, "self_attn.o_proj"),
    ("ffn_inp", LAST, "post_attention_layernorm.input"),
    ("attn_post_norm", LAST, "post_attention_layernorm"),
    ("ffn_norm", LAST, "post_attention_layernorm"),
    ("ffn_gate", LAST, "mlp.gate_proj"),
    ("ffn_up", LAST, "mlp.up_proj"),
    ("ffn_gate_b", LAST, "mlp.gate_proj"),
    ("ffn_up_b", LAST, "mlp.up_proj"),
    ("ffn_swiglu", LAST, "mlp.down_proj.input"),
    ("ffn_out", LAST, "mlp.down_proj"),
)
# Of graphs that name what they compute otherwise; queries are scaled after their rotation.
OTHER_STATES = {
    "phi3": (
        ("attn_norm", LAST, "input_layernorm"),
        ("Qcur", BEFORE_ROPE, "self_attn.q_rope"),
        ("Kcur", LAST, "self_attn.k_rope"),
        ("kqv_out", LAST, "self_attn.o_proj.input"),
        ("ffn_norm", LAST, "post_attention_layernorm"),
        ("ffn_up", LAST, "mlp.gate_up_proj"),
        ("ffn_swiglu", LAST, "mlp.down_proj.input"),
        ("ffn_out", LAST, "mlp.down_proj"),
    )
}
# In a layer without a norm before the MLP, which is then what takes the sum.
SUM, WITHOUT_NORM = "ffn_inp", "mlp.gate_proj.input"
# States whose heads are rotated in pairs where the architecture does that.
QUERIES = ("q_proj", "q_norm", "q_rope")
KEYS = ("k_proj", "k_norm", "k_rope")


def trace(artifact: Artifact, ids: Sequence[int], threads: int) -> dict[str, np.ndarray]:
    """See `runtimes.states`."""
    path = artifact.files(".gguf")[0]
    recorder = _Recorder(len(ids))
    runtime = LlamaCpp(path, threads, recorder.callback)
    try:
        logits = runtime.logits(ids)
    finally:
        runtime.close()
    seen = recorder.tensors
    layers = sum(name.startswith("l_out-") for name in seen)
    if "embd" not in seen or not layers or "result_norm" not in seen:
        raise InputError(f"{path}: llama.cpp {llama_cpp.__version__} names its tensors otherwise")
    streams = [seen["embd"][LAST], *(seen[f"l_out-{layer}"][LAST] for layer in range(layers))]
    states = {residual(layer): rows for layer, rows in enumerate(streams[:-1])}
    states |= {f"{LAST_NORM}.input": streams[-1], LAST_NORM: seen["result_norm"][LAST]}
    family = read_metadata(path)["general.architecture"]
    pairs = _paired_heads(path)
    for layer in range(layers):
        normed = f"ffn_norm-{layer}" in seen
        for name, which, usual in OTHER_STATES.get(family, LAYER_STATES):
            state = WITHOUT_NORM if name == SUM and not normed else usual
            if tensors := seen.get(f"{name}-{layer}"):
                heads = pairs.get(state.rpartition(".")[2])
                rows = tensors[which]
                whole = split_rotary_pairs(rows.T, heads).T if heads else rows
                for part, columns in split(f"model.layers.{layer}.{state}.weight", whole.T, None):
                    states[part.removesuffix(".weight")] = columns.T
    return {**states, LOGITS: logits}


class _Recorder:
    """Copies every float32 tensor of the graph that has a row (or some) per token."""

    def __init__(self, tokens: int) -> None:
        self.tensors: dict[str, list[np.ndarray]] = {}
        self._tokens = tokens
        self._ggml = _ggml()
        self.callback = llama_cpp.ggml_backend_sched_eval_callback(self._watch)

    def _watch(self, tensor: int, ask: bool, _: Any) -> bool:
        """`ask`: is the tensor wanted once it is computed? Then again, when it is."""
        g = self._ggml
        kind = ctypes.cast(tensor, ctypes.POINTER(ctypes.c_int))[0]  # `type` is the first field
        count = g.ggml_nelements(tensor)
        name = g.ggml_get_name(tensor).decode(errors="replace")
        whole = kind == GGML_TYPE_F32 and count % self._tokens == 0 and "(" not in name
        if ask or not whole or not g.ggml_is_contiguous(tensor):
            return True
        rows = np.empty((self._tokens, count // self._tokens), np.float32)
        g.ggml_backend_tensor_get(tensor, rows.ctypes.data, 0, rows.nbytes)
        self.tensors.setdefault(name, []).append(rows)
        return True


def _ggml() -> ctypes.CDLL:
    """The library that llama-cpp-python has loaded already; it declares none of these."""
    folder = Path(llama_cpp.__file__).parent / "lib"
    (path,) = (path for path in folder.iterdir() if path.stem in ("libggml-base", "ggml-base"))
    library = ctypes.CDLL(str(path))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    for name, result, arguments in (
        ("ggml_get_name", ctypes.c_char_p, [pointer]),
        ("ggml_nelements", ctypes.c_int64, [pointer]),
        ("ggml_is_contiguous", ctypes.c_bool, [pointer]),
        ("ggml_backend_tensor_get", None, [pointer, pointer, size, size]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _paired_heads(path: Path) -> dict[str, int]:
    """Head counts of the states whose rotary partners lie side by side."""
    stated = read_metadata(path)
    family = stated["general.architecture"]
    heads = {
        layer: int(stated[f"{family}.{key}"]) for layer, key in ROTATED_BY.get(family, {}).items()
    }
    return {
        state: heads[layer]
        for layer, names in (("attn_q", QUERIES), ("attn_k", KEYS))
        for state in names
        if layer in heads
    }
