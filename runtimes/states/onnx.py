"""Hidden states in ONNX Runtime: values inside the graph, made outputs of a copy in memory.

The weights stay where they are, in the artifact's data files. Nodes are found by the module paths
that their names begin with, `/model/layers.3/mlp/down_proj/…`: those of our graphs, and those that
PyTorch's exporter gives a traced one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, NodeProto, ValueInfoProto

from edgeproof.artifact import Artifact
from edgeproof.artifact.json_file import read_json
from edgeproof.errors import DamagedExportError, InputError
from runtimes.onnx_folder import GRAPH_FOLDER
from runtimes.onnxruntime import PROVIDER, OnnxRuntime, create_session, open_graph
from runtimes.states import LAST_NORM, LOGITS
from runtimes.weights.fused import Heads, split

# ONNX Runtime's setting for where the data files of a model in memory are.
DATA_FOLDER = "session.model_external_initializers_file_folder_path"
# Modules of a layer whose result is taken → the state. Some graphs rotate queries in a node.
RESULTS = {
    **{
        name: name
        for name in (
            "input_layernorm", "self_attn.qkv_proj", "self_attn.q_proj", "self_attn.k_proj",
            "self_attn.v_proj", "self_attn.q_norm", "self_attn.k_norm", "self_attn.o_proj",
            "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
            "post_feedforward_layernorm",
        )
    },
    "self_attn.query": "self_attn.q_rope",
}  # fmt: skip
# Those whose input is taken.
INPUTS = ("self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj", "mlp.down_proj")
# What reads the residual stream first: one of these.
FIRST = ("input_layernorm", "self_attn.qkv_proj", "self_attn.q_proj")
# What is in the units of the residual stream, which a graph may scale.
STREAM = re.compile(r".*(layers\.\d+\.input|layernorm\.input|norm\.input|o_proj|down_proj)")
SKIP_NORM, SUM = "SkipSimplifiedLayerNormalization", 3


def trace(
    artifact: Artifact, ids: Sequence[int], threads: int, folder: str = GRAPH_FOLDER
) -> dict[str, np.ndarray]:
    """See `runtimes.states`; `folder` has the graph."""
    config = read_json(artifact.path / "config.json")
    layers, heads = int(config["num_hidden_layers"]), Heads.of(config)
    chosen: dict[str, str] = {}

    def open_session(path: Path) -> Any:
        model = _load(path)
        chosen.update(_chosen(model.graph, layers))
        if f"{LAST_NORM}.input" not in chosen:
            raise InputError(f"{path}: no node is named after the last norm, /model/norm/…")
        known = {item.name for item in model.graph.output}
        extra = sorted(set(chosen.values()) - known)
        model.graph.output.extend(ValueInfoProto(name=name) for name in extra)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry(DATA_FOLDER, str(path.parent))
        return create_session(path, options, model.SerializeToString(), providers=[PROVIDER])

    runtime = OnnxRuntime(*open_graph(artifact, open_session, folder))
    try:
        found = dict(zip(chosen, runtime.values([*chosen.values()], ids), strict=True))
    finally:
        runtime.close()
    scale = np.float32(artifact.manifest.variant.facts.residual_scale)
    states: dict[str, np.ndarray] = {}
    for name, value in found.items():
        rows = _rows(value) / (scale if STREAM.fullmatch(name) else np.float32(1))
        # The outputs of a fused projection are cut as the rows of its weight are.
        for part, columns in split(f"{name}.weight", rows.T, heads):
            states[part.removesuffix(".weight")] = columns.T
    return states


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise DamagedExportError(f"{path}: cannot be read ({error})") from None


def _chosen(graph: GraphProto, layers: int) -> dict[str, str]:
    """State's name → the value of the graph that it is."""
    modules: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        modules.setdefault(node.name.rpartition("/")[0], []).append(node)
    stored = {item.name for item in graph.initializer}
    chosen = {LOGITS: "logits"}
    for layer in (f"layers.{number}" for number in range(layers)):
        for name, state in RESULTS.items():
            if nodes := modules.get(_path(f"{layer}.{name}")):
                chosen[f"model.{layer}.{state}"] = nodes[-1].output[0]
        if readers := [nodes for name in FIRST if (nodes := modules.get(_path(f"{layer}.{name}")))]:
            chosen[f"model.{layer}.input"] = _taken(readers[0][0], stored)
        for name in INPUTS:
            if nodes := modules.get(_path(f"{layer}.{name}")):
                chosen[f"model.{layer}.{name}.input"] = _taken(nodes[0], stored)
        chosen[f"model.{layer}.self_attn.k_rope"] = f"present.{layer[7:]}.key"
    if nodes := modules.get("/model/norm"):
        chosen |= {LAST_NORM: nodes[-1].output[0], f"{LAST_NORM}.input": _taken(nodes[0], stored)}
    return chosen


def _path(module: str) -> str:
    """`/model/layers.3/mlp/down_proj` of `layers.3.mlp.down_proj`."""
    layers, number, *rest = module.split(".")
    return "/".join(("/model", f"{layers}.{number}", *rest))


def _taken(node: NodeProto, stored: set[str]) -> str:
    """What a module's first node reads; of a norm that adds first, the sum."""
    if node.op_type == SKIP_NORM and len(node.output) > SUM:
        return str(node.output[SUM])
    return next(str(name) for name in node.input if name not in stored)


def _rows(value: np.ndarray) -> np.ndarray:
    """[1, T, width], or of keys [1, heads, T, size], → float32 [T, width]."""
    rows = value[0].swapaxes(0, 1) if value.ndim == 4 else value[0]
    return np.asarray(rows.reshape(len(rows), -1), np.float32)
