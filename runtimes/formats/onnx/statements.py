"""What an ONNX folder says of its model: config.json, genai_config.json and nodes' attributes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, NodeProto, helper, numpy_helper

from edgeproof.artifact import Artifact
from edgeproof.artifact.json_file import read_json
from runtimes.config_facts import CONFIG, SAME_NAME, Statement, facts_of

GENAI = "genai_config.json"
GENAI_FACTS = {
    "head_size": "head_dim",
    "hidden_size": "hidden_size",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "num_hidden_layers": "num_hidden_layers",
}
# Attribute of a graph's node, by operator → fact. `rotary` and `interleaved` are flags.
ATTRIBUTES = {
    "GroupQueryAttention": {
        "num_heads": "num_attention_heads",
        "kv_num_heads": "num_key_value_heads",
        "scale": "attention_scale",
        "do_rotary": "rotary",
        "rotary_interleaved": "interleaved",
    },
    "Attention": {
        "q_num_heads": "num_attention_heads",
        "kv_num_heads": "num_key_value_heads",
        "scale": "attention_scale",
    },
    "RotaryEmbedding": {"interleaved": "interleaved"},
    "RMSNormalization": {"epsilon": "rms_norm_eps"},
    "SkipSimplifiedLayerNormalization": {"epsilon": "rms_norm_eps"},
}
COSINE_TABLE = "rotary.cosine"
FIRST_NORM = "/model/layers.0/input_layernorm/"
HEAD_NORM = re.compile(r"/[qk]_norm/")


def statements(artifact: Artifact) -> Iterator[Statement]:
    """All of them, of every graph.

    Raises:
        ValueError: a graph is malformed; other errors come of other damage.
    """
    stated = facts_of(read_json(artifact.path / CONFIG))
    for name in (*SAME_NAME, "rope_theta", "max_position_embeddings", "model_type"):
        if name in stated:
            yield f"{CONFIG} {name}", stated[name], name
    genai = artifact.path / GENAI
    if genai.exists():
        model = read_json(genai)["model"]
        yield f"{GENAI} vocab_size", model["vocab_size"], "vocab_size"
        for key, fact in GENAI_FACTS.items():
            yield f"{GENAI} {key}", model["decoder"][key], fact
    scale = artifact.manifest.variant.facts.residual_scale
    for path in sorted(artifact.path.rglob("*.onnx")):
        try:
            graph = onnx.load(path, load_external_data=False).graph
        except DecodeError as error:
            raise ValueError(error) from None
        yield from _graph(graph, path.parent, scale)


def _graph(graph: GraphProto, folder: Path, residual_scale: float) -> Iterator[Statement]:
    for node in graph.node:
        known = ATTRIBUTES.get(node.op_type, {})
        for attribute in node.attribute:
            if attribute.name in known:
                fact, value = known[attribute.name], helper.get_attribute_value(attribute)
                if fact == "rms_norm_eps":
                    value /= _epsilon_factor(node, residual_scale)
                yield f"{node.name} {attribute.name}", value, fact
    for item in graph.initializer:
        if item.name == COSINE_TABLE:
            table = numpy_helper.to_array(item, str(folder))
            yield item.name, table[1].astype(np.float64), "rotary_cosine"


def _epsilon_factor(node: NodeProto, residual_scale: float) -> float:
    """What a graph multiplies ε with: 4 where x + x is normalised, S² of a scaled stream."""
    of_head = HEAD_NORM.search(node.name) is not None
    first = of_head or node.name.startswith(FIRST_NORM)  # nothing to add yet
    doubled = first and len(node.input) > 1 and node.input[0] == node.input[1]
    scaled = 1.0 if of_head else residual_scale**2
    return scaled * (4 if doubled else 1)
