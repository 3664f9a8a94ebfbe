"""What an artifact says of the model beside its weights, against the checkpoint's config.

Keys: gguf's `constants.py`; MLC's `mlc-chat-config.json`; Hugging Face's `config.json`, ONNX
Runtime GenAI's `genai_config.json` and the attributes of the graph's own nodes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, NodeProto, helper, numpy_helper

from edgeproof.artifact import Artifact
from edgeproof.artifact.json_file import read_json
from edgeproof.errors import InputError
from runtimes.gguf_file import read_metadata
from runtimes.parity.localise.names import place_of
from runtimes.parity.localise.result import Cause, Component, Finding
from runtimes.parity.localise.stops import compare_stops
from runtimes.weights.fused import Heads

Facts = Mapping[str, Any]  # name as `COMPONENTS` has it → value
# (key in the artifact, what it says, which fact of the checkpoint it is)
Statement = tuple[str, Any, str]

COMPONENTS: dict[str, Component | None] = {
    "hidden_size": None,
    "intermediate_size": None,
    "num_hidden_layers": None,
    "num_attention_heads": Component.ATTENTION,
    "num_key_value_heads": Component.ATTENTION,
    "head_dim": Component.ATTENTION,
    "attention_scale": Component.ATTENTION,
    "rotary": Component.ROPE,
    "interleaved": Component.ROPE,
    "rope_theta": Component.ROPE,
    "rotary_cosine": Component.ROPE,
    "rms_norm_eps": Component.INPUT_NORM,
    "vocab_size": Component.EMBEDDING,
    "max_position_embeddings": None,
    "tie_word_embeddings": Component.HEAD,
    "model_type": None,
}
GGUF_KEYS = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "rope.dimension_count": "head_dim",
    "rope.freq_base": "rope_theta",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "context_length": "max_position_embeddings",
    "vocab_size": "vocab_size",
}
GGUF_FAMILIES = {"mistral": "llama"}  # others have Hugging Face's name
MLC_KEYS = {
    "position_embedding_base": "rope_theta",
    "context_window_size": "max_position_embeddings",
}
SAME_NAME = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "rms_norm_eps", "vocab_size", "tie_word_embeddings",
)  # fmt: skip
GENAI_KEYS = {
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
MODULE = re.compile(r"/(model/.+)/\w+")
FIRST_NORM = "/model/layers.0/input_layernorm/"
HEAD_NORM = re.compile(r"/[qk]_norm/")
TOLERANCE = 1e-3  # of numbers, so that a table in float16 is the same
SHOWN = 5
# The damage that a file written by others can do to the code below.
MALFORMED = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, DecodeError)


def compare_metadata(artifact: Artifact, checkpoint: Path) -> tuple[Finding, ...]:
    """One finding for each fact that the artifact states wrongly.

    Raises:
        InputError: a file of the artifact cannot be read, or is malformed.
    """
    facts = facts_of(read_json(checkpoint / "config.json"))
    wrong: dict[str, list[Statement]] = {}
    try:
        statements = [*READERS[artifact.manifest.variant.format](artifact, facts)]
    except MALFORMED as error:
        raise InputError(f"{artifact.path}: its metadata cannot be read ({error})") from None
    for statement in statements:
        _, said, fact = statement
        if fact in facts and not _equal(said, facts[fact]):
            wrong.setdefault(fact, []).append(statement)
    found = (_finding(fact, statements, facts[fact]) for fact, statements in wrong.items())
    return (*found, *compare_stops(artifact, checkpoint))


def facts_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that a Hugging Face config states; transformers 5 nests those of the rope."""
    heads = Heads.of(config)
    rope = config.get("rope_parameters") or {}
    theta = rope.get("rope_theta", config.get("rope_theta"))
    facts = {
        **{name: config[name] for name in SAME_NAME if name in config},
        "num_attention_heads": heads.query,
        "num_key_value_heads": heads.kv,
        "head_dim": heads.size,
        "attention_scale": heads.size**-0.5,
        "rotary": 1,
        "interleaved": 0,
        "max_position_embeddings": config.get("max_position_embeddings"),
        "model_type": config.get("model_type"),
        "rope_theta": theta,
    }
    scaling = config.get("rope_scaling") or rope
    if theta and scaling.get("rope_type", scaling.get("type", "default")) == "default":
        frequencies = float(theta) ** (-np.arange(0, heads.size, 2) / heads.size)
        facts["rotary_cosine"] = np.cos(frequencies)  # of the second position
    return {name: value for name, value in facts.items() if value is not None}


def _gguf(artifact: Artifact, facts: Facts) -> Iterator[Statement]:
    stated = read_metadata(artifact.files(".gguf")[0])
    family = stated["general.architecture"]
    expected = facts["model_type"]
    yield "general.architecture", _reverse(family, expected), "model_type"
    for key, fact in GGUF_KEYS.items():
        if f"{family}.{key}" in stated:
            yield f"{family}.{key}", stated[f"{family}.{key}"], fact


def _reverse(family: str, expected: str) -> str:
    """Hugging Face's name of llama.cpp's family where it is the expected one."""
    return expected if GGUF_FAMILIES.get(expected, expected) == family else family


def _mlc(artifact: Artifact, _: Facts) -> Iterator[Statement]:
    model = read_json(artifact.path / "mlc-chat-config.json").get("model_config", {})
    for key, fact in {**{name: name for name in SAME_NAME}, **MLC_KEYS}.items():
        if key in model:
            yield f"model_config.{key}", model[key], fact


def _onnx(artifact: Artifact, facts: Facts) -> Iterator[Statement]:
    stated = facts_of(read_json(artifact.path / "config.json"))
    for name in (*SAME_NAME, "rope_theta", "max_position_embeddings", "model_type"):
        if name in stated:
            yield f"config.json {name}", stated[name], name
    genai = artifact.path / "genai_config.json"
    if genai.exists():
        model = read_json(genai)["model"]
        yield "genai_config.json vocab_size", model["vocab_size"], "vocab_size"
        for key, fact in GENAI_KEYS.items():
            yield f"genai_config.json {key}", model["decoder"][key], fact
    scale = float(dict(artifact.manifest.variant.storage).get("residual_scale", 1))
    for path in sorted(artifact.path.rglob("*.onnx")):
        graph = onnx.load(path, load_external_data=False).graph
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


READERS: dict[str, Callable[[Artifact, Facts], Iterator[Statement]]] = {
    "gguf": _gguf,
    "mlc": _mlc,
    "onnx": _onnx,
}


def _equal(said: Any, known: Any) -> bool:
    if isinstance(known, np.ndarray):
        return said.shape == known.shape and bool(np.abs(said - known).max() <= TOLERANCE)
    if isinstance(known, float | int) and not isinstance(known, bool):
        return isinstance(said, float | int) and math.isclose(said, known, rel_tol=TOLERANCE)
    return bool(said == known)


def _finding(fact: str, statements: list[Statement], known: Any) -> Finding:
    key, said, _ = statements[0]
    places = [place_of(_module(name)) for name, _, _ in statements]
    layer, component = places[0]
    more = f" (and {len(statements) - 1} more)" if len(statements) > 1 else ""
    text = f"{key} is {_shown(said)}, the checkpoint's {fact} is {_shown(known)}{more}"
    return Finding(Cause.METADATA, text, layer, component or COMPONENTS[fact], key=key)


def _module(key: str) -> str:
    """The module of a node's name, as Hugging Face writes it."""
    match = MODULE.match(key.partition(" ")[0])
    return match[1].replace("/", ".") if match else ""


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"[{', '.join(f'{item:.4g}' for item in value[:SHOWN])} …]"
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value)
