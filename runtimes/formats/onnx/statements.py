"""What an ONNX folder says of its model: config.json, genai_config.json and nodes' attributes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, NodeProto, TensorProto, helper

from edgeproof.artifact import Artifact
from edgeproof.artifact.json_file import read_json
from edgeproof.checkpoints.special_tokens import CONFIG
from edgeproof.errors import InputError
from edgeproof.families import Role, read_config
from runtimes.config_facts import (
    NO_WINDOW,
    SAME_NAME,
    UNEXPLAINED,
    WINDOW_OF,
    Statement,
    facts_of,
)
from runtimes.onnx_data import stored_array
from runtimes.said import GENAI, config_of

ACCUMULATION = "accumulation"  # the type of sums: see `_graph`
GENAI_FACTS = {
    "head_size": "head_dim",
    "hidden_size": "hidden_size",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "num_hidden_layers": "num_hidden_layers",
}
# Attribute of a graph's node, by operator → fact. `rotary` and `interleaved` are flags. Every
# attribute of these operators is one of these: another would change what they compute.
ATTRIBUTES = {
    "GroupQueryAttention": {
        "num_heads": "num_attention_heads",
        "kv_num_heads": "num_key_value_heads",
        "scale": "attention_scale",
        "do_rotary": "rotary",
        "rotary_interleaved": "interleaved",
        "local_window_size": "sliding_window",
        "softcap": "softcap",
    },
    "Attention": {
        "q_num_heads": "num_attention_heads",
        "kv_num_heads": "num_key_value_heads",
        "scale": "attention_scale",
        "softcap": "softcap",
        "softmax_precision": ACCUMULATION,
    },
    "RotaryEmbedding": {
        "interleaved": "interleaved",
        "num_heads": "num_attention_heads",
        "rotary_embedding_dim": "rotary_dim",
    },
    "RMSNormalization": {"epsilon": "rms_norm_eps", "stash_type": ACCUMULATION},
    "SkipSimplifiedLayerNormalization": {"epsilon": "rms_norm_eps"},
}
# Operators that take cosines and sines, by domain and name → which of their inputs they are.
TABLES = {
    ("com.microsoft", "GroupQueryAttention"): (7, 8),
    ("com.microsoft", "RotaryEmbedding"): (2, 3),
    ("", "RotaryEmbedding"): (1, 2),
}
TABLE_FACTS = ("rotary_cosine", "rotary_sine")
# GroupQueryAttention's inputs up to the bias of its scores; those after it are sinks and scales.
KNOWN_INPUTS = {"GroupQueryAttention": 11, "Attention": 6}
# Its window is said of every layer: without the attribute there is none.
FUSED, LIMIT, LAYER = "GroupQueryAttention", "local_window_size", re.compile(r"/layers\.(\d+)/")
FIRST_NORM = "/model/layers.0/input_layernorm/"
KEY, KEY_FACTS = "/key/", {"num_attention_heads": "num_key_value_heads"}
HEAD_NORM = re.compile(r"/[qk]_norm/")
# Norms of what is added to the residual stream: before that, it has not the stream's scale.
OUT_NORMS = (Role.ATTENTION_OUT_NORM, Role.MLP_OUT_NORM)


def statements(artifact: Artifact) -> Iterator[Statement]:
    """All of them, of every graph.

    Raises:
        ValueError: a graph is malformed; other errors come of other damage.
    """
    config = config_of(artifact.path)
    # What only another maker's folder for GenAI lacks, its own settings say.
    stated = facts_of(config) if (artifact.path / CONFIG).exists() else {}
    out_norms = _out_norms(config)
    for name in (*SAME_NAME, "rope_theta", "max_position_embeddings", "model_type"):
        if name in stated:
            fact = "windowed_context" if name == "max_position_embeddings" else name
            yield f"{CONFIG} {name}", stated[name], fact
    genai = artifact.path / GENAI
    if genai.exists():
        model = read_json(genai)["model"]
        yield f"{GENAI} vocab_size", model["vocab_size"], "vocab_size"
        for key, fact in GENAI_FACTS.items():
            yield f"{GENAI} {key}", model["decoder"][key], fact
    scale = artifact.manifest.variant.facts.residual_scale
    for path in _told_graphs(artifact):
        try:
            graph = onnx.load(path, load_external_data=False).graph
        except DecodeError as error:
            raise ValueError(error) from None
        yield from _graph(graph, path.parent, scale, out_norms)


def _told_graphs(artifact: Artifact) -> list[Path]:
    """Those whose attributes say something: all of ours, and another maker's in our layout.

    Elsewhere a rotary table may be applied by another operator, or ε be scaled: running it tells.
    """
    if artifact.foreign is None:
        return sorted(artifact.path.rglob("*.onnx"))
    return [] if artifact.manifest.variant.facts.traced else artifact.files(".onnx")


def _out_norms(config: Mapping[str, Any]) -> frozenset[str]:
    """The paths of those modules, as nodes have them in their names."""
    try:
        _, parameters = read_config(config)
    except InputError:
        return frozenset()
    modules = (item.name.rpartition(".")[0] for item in parameters if item.role in OUT_NORMS)
    return frozenset("/" + re.sub(r"\.(?!\d)", "/", module) for module in modules)


def _graph(
    graph: GraphProto, folder: Path, residual_scale: float, out_norms: Collection[str]
) -> Iterator[Statement]:
    users: dict[tuple[str, str], str] = {}  # (table, fact) → the first node that uses it
    for node in graph.node:
        for attribute in node.attribute if node.op_type in ATTRIBUTES else ():
            fact = ATTRIBUTES[node.op_type].get(attribute.name, UNEXPLAINED)
            value = helper.get_attribute_value(attribute)
            if fact == "rms_norm_eps":
                value /= _epsilon_factor(node, residual_scale, out_norms)
            if fact == ACCUMULATION:  # PyTorch's reference adds up in float32
                fact = UNEXPLAINED if value != TensorProto.FLOAT else fact
            if node.op_type == "RotaryEmbedding" and KEY in node.name:
                fact = KEY_FACTS.get(fact, fact)
            yield f"{node.name} {attribute.name}", _plain(value), fact
        if node.op_type == FUSED and (match := LAYER.search(node.name)):
            limits = [item.i for item in node.attribute if item.name == LIMIT] or [NO_WINDOW]
            yield f"{node.name} {LIMIT}", limits[0], f"{WINDOW_OF}{match[1]}"
        known = KNOWN_INPUTS.get(node.op_type, len(node.input))
        for name in filter(None, node.input[known:]):
            yield f"{node.name} input", name, UNEXPLAINED
        places = TABLES.get((node.domain, node.op_type), ())
        for place, fact in zip(places, TABLE_FACTS, strict=False):
            users.setdefault((node.input[place], fact), node.name)
    stored = {item.name: item for item in graph.initializer}
    for (name, fact), user in users.items():
        table = stored_array(stored[name], folder) if name in stored else None
        yield f"{user} {name}", table, fact


def _plain(value: Any) -> Any:
    """An attribute's text as text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _epsilon_factor(node: NodeProto, residual_scale: float, out_norms: Collection[str]) -> float:
    """What a graph multiplies ε with: 4 where x + x is normalised, S² of a scaled stream."""
    apart = HEAD_NORM.search(node.name) or node.name.rpartition("/")[0] in out_norms
    alone = apart or node.name.startswith(FIRST_NORM)  # nothing to add, or nothing yet
    doubled = alone and len(node.input) > 1 and node.input[0] == node.input[1]
    scaled = 1.0 if apart else residual_scale**2
    return scaled * (4 if doubled else 1)
