"""What the files of an ONNX folder have to say: to transformers.js, Optimum and GenAI.

Sources: transformers.js, `models/session.js` (`dtype` → file name, `use_external_data_format`,
`kv_cache_dtype`); onnxruntime-genai, `models/builders/base.py`, `make_genai_config`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, TensorProto, ValueInfoProto

from edgeproof.artifact import Artifact
from edgeproof.artifact.json_file import read_json
from edgeproof.checkpoints.settings import shipped_settings
from edgeproof.checkpoints.special_tokens import CONFIG, listed
from runtimes.contents.counted import counted
from runtimes.contents.expectation import Exercised
from runtimes.contents.files import SETTINGS, TOPICS, Content, copied, copied_of
from runtimes.contents.free import free
from runtimes.contents.origin import Origin
from runtimes.onnx_data import PARAMETER, nbytes, place_of
from runtimes.onnx_folder import GRAPH_FOLDER, ROOT

GENAI, ADDED = "genai_config.json", "transformers.js_config"
# transformers.js's dtype → what its files' names end with.
SUFFIXES = {
    "fp32": "", "fp16": "_fp16", "q8": "_quantized", "int8": "_int8", "uint8": "_uint8",
    "q4": "_q4", "q4f16": "_q4f16", "bnb4": "_bnb4",
}  # fmt: skip
DTYPES = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}
ONNX_TYPES = {"float32": "float", "float16": "float16"}
FUSED = "GroupQueryAttention"
CACHE, PRESENT = "past_key_values.", "present."
# Names of axes that have no size.
BATCH, SEQUENCE, NUMBER = "batch_size", "sequence_length", "num_logits"
PAST, TOTAL = "past_sequence_length", "total_sequence_length"
LOG = free(f"{GENAI} model.decoder.session_options.log_id")
RUN = Exercised("the graph is run")
READ = Exercised("every graph runs on it, and its weights are compared")
# What GenAI assumes where generation_config.json says nothing: as the SmolLM cards recommend it.
TEMPERATURE, TOP_P = 0.2, 0.9


def contents(artifact: Artifact, origin: Origin) -> Iterator[Content]:
    """Every file. A graph elsewhere is not run, and accounted for by nothing, nor its data.

    Raises:
        ValueError: a graph is malformed, or none is in the folder `onnx`.
    """
    if artifact.foreign is not None:
        return  # settings that decide are compared by what they do: tokenizer, template, stops
    listed = [PurePosixPath(item.path) for item in artifact.manifest.outputs]
    paths = [
        str(p) for p in listed if p.suffix == ".onnx" and str(p.parent) in (GRAPH_FOLDER, ROOT)
    ]
    graphs = {path: _graph(artifact.path / path) for path in paths}
    named = {name for path, graph in graphs.items() for name in _data_files(path, graph)}
    facts = artifact.manifest.variant.facts
    for path in paths:
        # Optimum names its axes itself.
        asked = RUN if facts.traced else _asked(origin, facts.activations, chooses="/" in path)
        yield Content(path, None if facts.traced else _interface(graphs[path]), asked)
    for path in sorted(named):
        yield Content(path, None, READ)
    (inner,) = (path for path in paths if "/" in path)
    if not facts.traced:
        yield counted(artifact, origin, _weight_bytes(graphs[inner]))
    dtype = artifact.manifest.variant.name.partition("-")[0]
    config = _config(origin, dtype, inner, graphs[inner])
    yield Content(CONFIG, read_json(artifact.path / CONFIG), config)
    yield from copied(artifact.path, origin, copied_of(origin))
    if not facts.traced:
        if not origin.has(SETTINGS):
            said = read_json(artifact.path / SETTINGS)
            yield Content(SETTINGS, said, shipped_settings(origin.settings), TOPICS[SETTINGS])
        (root,) = (path for path in paths if "/" not in path)
        genai = artifact.path / GENAI
        yield Content(
            GENAI, read_json(genai) if genai.exists() else None, _genai(origin, root, graphs[root])
        )


def _graph(path: Path) -> GraphProto:
    try:
        return onnx.load(path, load_external_data=False).graph
    except DecodeError as error:
        raise ValueError(error) from None


def _data_files(path: str, graph: GraphProto) -> set[str]:
    """The files, in the artifact, that a graph's tensors lie in."""
    entries = (entry for item in graph.initializer for entry in item.external_data)
    folder = PurePosixPath(path).parent
    return {(folder / entry.value).as_posix() for entry in entries if entry.key == "location"}


def _weight_bytes(graph: GraphProto) -> int:
    """Of what has a checkpoint's name, once where several tensors are the same bytes."""
    weights = (item for item in graph.initializer if PARAMETER.match(item.name))
    placed = {place_of(item, Path()) or item.name: nbytes(item) for item in weights}
    return sum(placed.values())


def _interface(graph: GraphProto) -> dict[str, Any]:
    """Type and axes of what a graph takes and gives, by name."""
    stored = {item.name for item in graph.initializer}
    taken = [item for item in graph.input if item.name not in stored]
    return {
        "input": {item.name: _type(item) for item in taken},
        "output": {item.name: _type(item) for item in graph.output},
    }


def _type(value: ValueInfoProto) -> list[Any]:
    tensor = value.type.tensor_type
    sizes = [axis.dim_param or axis.dim_value for axis in tensor.shape.dim]
    return [TensorProto.DataType.Name(tensor.elem_type).lower(), *sizes]


def _asked(origin: Origin, activations: str | None, *, chooses: bool) -> dict[str, Any]:
    """What a decoder takes and gives. transformers.js makes the first cache by what a graph says.

    Of an axis without a size it knows `batch_size` alone; others are 0. Source: transformers.js
    4.3, `addPastKeyValues`.
    """
    facts, kind = origin.facts, ONNX_TYPES.get(activations or "")
    heads, size = facts["num_key_value_heads"], facts["head_dim"]
    chosen: dict[str, Any] = {"num_logits_to_keep": ["int64"]} if chooses else {}
    names = [(n, part) for n in range(facts["num_hidden_layers"]) for part in ("key", "value")]
    return {
        "input": {
            "input_ids": ["int64", BATCH, SEQUENCE],
            "attention_mask": ["int64", BATCH, TOTAL],
            **{f"{CACHE}{n}.{part}": [kind, BATCH, heads, PAST, size] for n, part in names},
            **chosen,
        },
        "output": {
            "logits": ["float", BATCH, NUMBER if chooses else SEQUENCE, facts["vocab_size"]],
            **{f"{PRESENT}{n}.{part}": [kind, BATCH, heads, TOTAL, size] for n, part in names},
        },
    }


def _config(origin: Origin, dtype: str, path: str, graph: GraphProto) -> dict[str, Any]:
    """The checkpoint's own, and what transformers.js needs to find and feed a dtype's graph."""
    file = f"model{SUFFIXES[dtype]}.onnx" if dtype in SUFFIXES else PurePosixPath(path).name
    count = len(_data_files(path, graph))
    names = {f"{path}_data" + (f"_{number}" if number else "") for number in range(count)}
    # It asks for these names: as many files under others are no files to it.
    chunks = count if names == _data_files(path, graph) else 0
    caches = {
        item.type.tensor_type.elem_type for item in graph.input if item.name.startswith(CACHE)
    }
    (cache,) = (DTYPES.get(kind) for kind in caches)
    return {
        **origin.config,
        "max_position_embeddings": origin.facts["windowed_context"],
        ADDED: {
            **origin.config.get(ADDED, {}),
            "use_external_data_format": {file: chunks},
            "kv_cache_dtype": {dtype: cache},
        },
    }


def _genai(origin: Origin, file: str, graph: GraphProto) -> dict[str, Any]:
    facts = origin.facts
    ids = {f"{role}_token_id": origin.generation_id(role) for role in ("pad", "bos", "eos")}
    if ids["pad_token_id"] is None:
        ids["pad_token_id"] = next(iter(listed(ids["eos_token_id"])), None)
    both = ("key", "value")
    return {
        "model": {
            "type": "decoder",
            "vocab_size": facts["vocab_size"],
            "context_length": facts["windowed_context"],
            **{name: value for name, value in ids.items() if value is not None},
            "decoder": {
                "session_options": {"log_id": LOG, "provider_options": []},
                "filename": file,
                "hidden_size": facts["hidden_size"],
                "head_size": facts["head_dim"],
                "num_attention_heads": facts["num_attention_heads"],
                "num_key_value_heads": facts["num_key_value_heads"],
                "num_hidden_layers": facts["num_hidden_layers"],
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    **{f"past_{kind}_names": f"{CACHE}%d.{kind}" for kind in both},
                },
                "outputs": {
                    "logits": "logits",
                    **{f"present_{kind}_names": f"{PRESENT}%d.{kind}" for kind in both},
                },
            },
        },
        "search": {
            "do_sample": origin.generation.get("do_sample") is not False,
            "temperature": origin.generation_number("temperature", TEMPERATURE),
            "top_p": origin.generation_number("top_p", TOP_P),
            "top_k": int(origin.generation_number("top_k", 0)),
            "repetition_penalty": origin.generation_number("repetition_penalty", 1.0),
            "max_length": facts["windowed_context"],
            # Only this operator writes into a cache of full length.
            "past_present_share_buffer": any(node.op_type == FUSED for node in graph.node),
        },
    }
