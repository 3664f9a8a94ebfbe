"""What the files of an MLC folder have to say: to MLC-LLM and WebLLM.

Sources: mlc_llm `protocol/mlc_chat_config.py`, `protocol/conversation_protocol.py`; tvm
`contrib/tvmjs.py` (the caches' index); web-llm `src/config.ts`, `ModelRecord`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from edgeproof.artifact import Artifact
from edgeproof.artifact.json_file import read_json
from edgeproof.checkpoints.tokenizer import token_ids
from edgeproof.families.context import bounded
from runtimes.contents.conversation import conversation
from runtimes.contents.counted import counted
from runtimes.contents.expectation import Exercised, Expected
from runtimes.contents.files import SETTINGS, TOKENIZER, Content, Topic, copied
from runtimes.contents.free import free
from runtimes.contents.origin import Origin
from runtimes.rotary import rope_of, scaling_of

CONFIG, INDEX, OLD_INDEX = "mlc-chat-config.json", "tensor-cache.json", "ndarray-cache.json"
CHUNK = "prefill_chunk_size"
BF16_INDEX, APP = "tensor-cache-b16.json", "webllm-model.json"
FILES = (TOKENIZER, "vocab.json", "merges.txt", "added_tokens.json", SETTINGS)
SIZES = {"float16": 2, "float32": 4, "bfloat16": 2, "uint32": 4}
STORED_NARROW, RAW = "f32-to-bf16", "raw"
# As the SmolLM cards recommend it, where generation_config.json says nothing; no penalty.
SAMPLING = {
    "temperature": 0.2, "top_p": 0.9, "repetition_penalty": 1.0, "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}  # fmt: skip
METHODS = {"ByteLevel": "byte_level", "ByteFallback": "byte_fallback"}
PREPEND = {"type": "Prepend", "prepend": "▁"}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
TOPICS = {"tokenizer_info": Topic.TOKENIZER, "active_vocab_size": Topic.TOKENIZER}
SCALING = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
READ = Exercised("every weight is read through it and compared")
MEBI, PREFILL = 1 << 20, 1024


def contents(artifact: Artifact, origin: Origin) -> Iterator[Content]:
    """Every file."""
    folder = artifact.path
    paths = [item.path for item in artifact.manifest.outputs]
    sizes = {item.path: item.bytes for item in artifact.manifest.outputs}
    chat = read_json(folder / CONFIG)
    expected = _chat(origin, _scheme(artifact, chat), chat)
    yield Content(CONFIG, chat, expected, TOPICS)
    yield from copied(folder, origin, FILES)
    index = read_json(folder / INDEX)
    yield Content(INDEX, index, _index(index, sizes, artifact.manifest.model.parameters))
    for path in {shard["dataPath"] for shard in index["records"]}:
        yield Content(path, None, READ)
    # WebLLM before 0.2.79, and MLC-LLM of that time, read the same index by its old name.
    yield Content(OLD_INDEX, _read(artifact, OLD_INDEX), index)
    records = [record for shard in index["records"] for record in shard["records"]]
    if artifact.foreign is None:
        yield counted(artifact, origin, sum(record["nbytes"] for record in records))
    if any(_narrowed(record) for record in records):
        yield Content(BF16_INDEX, _read(artifact, BF16_INDEX), _as_bfloat16(index))
    libraries = [path for path in paths if path.endswith(".wasm")]
    for path in libraries:
        yield Content(path, None, free("*.wasm"))
    dtype = next(r["dtype"] for r in records if r["name"].endswith("norm.weight"))
    if dtype != "bfloat16":  # WebGPU has none
        expected = {"model_list": [_record(origin, records, dtype, libraries)]}
        yield Content(APP, _read(artifact, APP), expected)


def _scheme(artifact: Artifact, chat: Mapping[str, Any]) -> Any:
    """What the variant is called after; another maker's folder is read by what it says itself."""
    if artifact.foreign is not None:
        return chat.get("quantization")
    return artifact.manifest.variant.name.partition("-")[0]


def _read(artifact: Artifact, name: str) -> Any:
    path = artifact.path / name
    return read_json(path) if path.exists() else None


def _chat(origin: Origin, scheme: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """How many tokens are read at once, and separators, are as `said` once, or in one way."""
    facts = origin.facts
    context = facts["context"]
    chunk = Expected(f"1 to {context}", lambda said: 0 < said <= context)
    alone = {"tensor_parallel_shards": 1, "pipeline_parallel_stages": 1}
    tokens = {*token_ids(origin.tokenizer), *origin.added}
    ids = {f"{role}_token_id": origin.generation_id(role) for role in ("pad", "bos", "eos")}
    return {
        "version": "0.1.0",
        "model_type": origin.family.mlc.name if origin.family.mlc else None,
        "quantization": scheme,
        "model_config": _model(origin, {
            "context_window_size": context, CHUNK: said.get(CHUNK), **alone,
        }),
        "vocab_size": facts["vocab_size"],
        "context_window_size": context,
        "sliding_window_size": -1,
        CHUNK: chunk,
        "attention_sink_size": -1,
        **alone,
        "active_vocab_size": len(tokens),
        **{key: origin.generation_number(key, value) for key, value in SAMPLING.items()},
        "tokenizer_files": [name for name in FILES if origin.has(name)],
        "tokenizer_info": _tokenizer_info(origin.tokenizer),
        "conv_template": conversation(origin, len(said.get("conv_template", {}).get("seps", ()))),
        **ids,
        "model_task": "chat",
        "embedding_metadata": None,
    }  # fmt: skip


def _model(origin: Origin, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """`model_config`: the fields of the model definition's config class."""
    facts, architecture = origin.facts, origin.family.mlc
    if architecture is None:
        return {}
    llamas = {
        **{
            name: facts[name]
            for name in (
                "hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers",
                "rms_norm_eps", "vocab_size", "num_key_value_heads", "head_dim",
            )
        },
        "tie_word_embeddings": bool(facts.get("tie_word_embeddings", False)),
        architecture.theta: facts["rope_theta"],
        "rope_scaling": _rope_scaling(origin.config),
        "max_batch_size": free(f"{CONFIG} model_config.max_batch_size"),
        "disaggregation": False,
        **sizes,
    }  # fmt: skip
    stated = {key: value for key, value in llamas.items() if key not in architecture.lacks}
    return {**stated, **architecture.keys(bounded(origin.decoder))}


def _rope_scaling(config: Mapping[str, Any]) -> dict[str, Any] | None:
    kind, rope = scaling_of(config), rope_of(config)
    return {"rope_type": kind, **{key: rope[key] for key in SCALING}} if kind == "llama3" else None


def _tokenizer_info(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """As mlc_llm's `cpp/tokenizers/tokenizers.cc`, `DetectTokenizerInfo`, has it."""
    decoders = _steps(tokenizer.get("decoder"), "decoders")
    methods = [METHODS[step["type"]] for step in decoders if step["type"] in METHODS]
    return {
        "token_postproc_method": methods[-1] if methods else "byte_fallback",
        "prepend_space_in_encode": PREPEND in _steps(tokenizer.get("normalizer"), "normalizers"),
        "strip_space_in_decode": STRIP in decoders,
    }


def _steps(part: Any, key: str) -> list[Any]:
    return [] if part is None else part[key] if part["type"] == "Sequence" else [part]


def _index(said: Mapping[str, Any], sizes: Mapping[str, int], parameters: int) -> dict[str, Any]:
    """What follows from names, shapes and types, which the weights' comparison relies on."""
    records = [record for shard in said["records"] for record in shard["records"]]
    loaded = float(sum(_bytes(record) for record in records))
    return {
        "metadata": {
            "ParamSize": len(records),
            "ParamBytes": loaded,
            "BitsPerParam": loaded * 8 / parameters,
        },
        "records": [_shard(shard, sizes) for shard in said["records"]],
    }


def _shard(said: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    records, offset = [], 0
    for record in said["records"]:
        stored = _bytes(record) // (2 if _narrowed(record) else 1)
        records.append(
            {
                "name": READ,
                "shape": READ,
                "dtype": READ,
                "format": Expected(f"{RAW} or {STORED_NARROW}", (RAW, STORED_NARROW).__contains__),
                "nbytes": stored,
                "byteOffset": offset,
            }
        )
        offset += stored
    return {
        "dataPath": Expected("a file of the folder", sizes.__contains__),
        "format": "raw-shard",
        "nbytes": sizes.get(said["dataPath"], offset),
        "records": records,
        "md5sum": Exercised("weights of a shard with another are refused"),
    }


def _bytes(record: Mapping[str, Any]) -> int:
    """Of a record in a loader's memory."""
    return int(math.prod(record["shape"])) * SIZES[record["dtype"]]


def _narrowed(record: Mapping[str, Any]) -> bool:
    return bool(record["dtype"] == "float32" and record["format"] == STORED_NARROW)


def _as_bfloat16(index: Mapping[str, Any]) -> dict[str, Any]:
    """The same bytes for loaders that know bfloat16."""
    narrow = {"dtype": "bfloat16", "format": RAW}
    shards = [
        {**shard, "records": [{**r, **(narrow if _narrowed(r) else {})} for r in shard["records"]]}
        for shard in index["records"]
    ]
    return {**index, "records": shards}


def _record(
    origin: Origin, records: list[dict[str, Any]], dtype: str, libraries: list[str]
) -> dict[str, Any]:
    """WebLLM's record of the model. It refuses GPUs whose buffers are smaller than it says."""
    facts, size, sizes = origin.facts, SIZES[dtype], [_bytes(record) for record in records]
    longest, layers = facts["context"], facts["num_hidden_layers"]
    context = min(longest, 4096)  # what WebLLM's own records take
    width = 2 * facts["num_key_value_heads"] * facts["head_dim"] * size
    values = min(longest, PREFILL) * (4 * facts["intermediate_size"] + facts["hidden_size"]) * size
    held = sum(sizes) + layers * width * context
    memory: Any = Expected(f"{(held + values) / MEBI:.2f}", lambda said: _near(said, held + values))
    buffer: Any = max(*sizes, width * context)
    windows: Any = context
    if libraries:  # which was compiled for a context of its own, and says what it allocates
        memory = Expected("at least the weights", lambda said: said * MEBI >= sum(sizes))
        buffer = Expected("at least the largest weight", lambda said: said >= max(sizes))
        windows = Expected(f"1 to {context}", lambda said: 0 < said <= context)
    return {
        "model": free(f"{APP} model_list.model"),
        "model_id": free(f"{APP} model_list.model_id"),
        **({"model_lib": _library(libraries)} if libraries else {}),
        "vram_required_MB": memory,
        "buffer_size_required_bytes": buffer,
        **({"required_features": ["shader-f16"]} if dtype == "float16" else {}),
        "overrides": {"context_window_size": windows},
    }


def _near(said: float, expected: int) -> bool:
    return abs(said - expected / MEBI) <= 0.006


def _library(libraries: list[str]) -> Expected:
    text = "a URL of the library in the folder"
    return Expected(text, lambda said: PurePosixPath(said).name in libraries)
