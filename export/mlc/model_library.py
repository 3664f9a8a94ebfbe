"""What a compiled model library (.wasm) was compiled for, and whether that is this model.

mlc_llm compiles a model's dimensions into a library. Loaded with other weights it fails late, or
answers nonsense silently: theta above all. Two places say what it was compiled for:

* `_metadata`, a function that returns JSON: family, quantization, context, prefill chunk, and every
  parameter's name, shape and dtype (mlc_llm `interface/compile.py`).
* `create_tir_paged_kv_cache`, the function that makes the KV cache: heads, head size and rotary
  base are arguments of its call (tvm `relax/frontend/nn/llm/kv_cache.py`), constants as long as
  the base is a whole number, as chat configs written here have it.

Hidden sizes and the number of layers follow from the parameters' shapes and names. The epsilon of
the norms is in neither, only inside the text of compiled shaders: it is not checked.

A TVM that is newer than this file must not keep anybody from exporting: a library whose bytecode
has another version and cannot be read is accepted, and `ModelLibrary.warning` says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgeproof.errors import InputError
from edgeproof.families import DecoderConfig
from export.mlc.model_config import architecture_of
from export.mlc.shards import StoredArray
from export.mlc.vm_executable import VERSION, Executable, find_bytecode
from export.mlc.wasm import initial_memory

METADATA = b'{"model_type"'
CREATE_CACHE = "create_tir_paged_kv_cache"
# Runtime function that makes the cache → which of its arguments is the rotary base. The one before
# it is the rotary scale; arguments 2 to 4 are heads, key/value heads and head size in both.
THETA_ARGUMENT = {
    "vm.builtin.paged_attention_kv_cache_create": 10,
    "vm.builtin.paged_attention_kv_cache_create_reduced": 7,
}
# Keys of the metadata that say how much a library can do, and are no fact about the model.
CONTEXT, CHUNK = "context_window_size", "prefill_chunk_size"


@dataclass(frozen=True)
class CompiledFor:
    """Facts of a library; `attention` are heads, key/value heads, head size, scale and theta."""

    metadata: dict[str, Any]
    attention: dict[str, float]

    @property
    def context(self) -> int:
        """The longest sequence that it was compiled for."""
        return int(self.metadata[CONTEXT])

    @property
    def prefill_chunk(self) -> int:
        """Tokens of a prefill step."""
        return int(self.metadata[CHUNK])

    @property
    def temporary_bytes(self) -> int:
        """What its greediest function allocates."""
        return max(self.metadata["memory_usage"].values(), default=0)


@dataclass(frozen=True)
class ModelLibrary:
    """A library: its bytecode's version, and the facts; None where that version hides them."""

    bytecode: str
    facts: CompiledFor | None

    @property
    def warning(self) -> str | None:
        """A line on what an unknown version of the bytecode means for the check."""
        if self.bytecode == VERSION:
            return None
        done = "was read as if it were" if self.facts else "cannot be read: accepted unchecked"
        return (
            f"TVM bytecode {self.bytecode} is not known here, only {VERSION}; this library {done}"
        )


def read_model_library(module: bytes, source: str) -> ModelLibrary:
    """Read a .wasm; `source` names it in errors.

    Raises:
        InputError: not a model library, or one of a known version that cannot be read.
    """
    bytecode = find_bytecode(initial_memory(module, source), source)
    facts = None if bytecode.executable is None else _facts(bytecode.executable)
    if facts is None and bytecode.version == VERSION:
        raise InputError(
            f"{source}: what this model library was compiled for cannot be read; compile it with a"
            " current mlc_llm from this artifact's mlc-chat-config.json"
        )
    return ModelLibrary(bytecode.version, facts)


def _facts(executable: Executable) -> CompiledFor | None:
    """None where something is missing or malformed."""
    texts = [c for c in executable.constants if isinstance(c, bytes) and c.startswith(METADATA)]
    try:
        facts = CompiledFor(json.loads(texts[0]), _attention(executable))
        whole = (facts.context, facts.prefill_chunk, facts.temporary_bytes)
        complete = isinstance(facts.metadata["params"], list) and min(whole[:2]) > 0
    except (IndexError, KeyError, ValueError, TypeError, AttributeError):
        return None
    return facts if complete else None


def _attention(executable: Executable) -> dict[str, float]:
    for callee, arguments in executable.calls(CREATE_CACHE):
        if callee in THETA_ARGUMENT:
            at = THETA_ARGUMENT[callee]
            facts = {
                "num_attention_heads": arguments[2],
                "num_key_value_heads": arguments[3],
                "head_dim": arguments[4],
                "rope_scale": arguments[at - 1],
                "position_embedding_base": arguments[at],
            }
            return {key: float(value) for key, value in facts.items()}
    raise ValueError


def check_compiled_for(
    facts: CompiledFor,
    config: DecoderConfig,
    quantization: str,
    arrays: Iterable[StoredArray],
    source: str,
) -> None:
    """Refuse a library that was compiled for another model, scheme or longer context.

    Raises:
        InputError: naming the first fact that differs.
    """
    ours = {
        "model_type": architecture_of(config).name,
        "quantization": quantization,
        "sliding_window_size": -1,
    }
    pairs = [
        *_pairs({key: facts.metadata.get(key) for key in ours}, ours),
        *_pairs(
            facts.attention,
            {
                "num_attention_heads": config.heads,
                "num_key_value_heads": config.kv_heads,
                "head_dim": config.head_dim,
                "rope_scale": 1,
                "position_embedding_base": config.rope.theta,
            },
        ),
        *_pairs(_parameters(facts, config, source), {a.name: _text(a) for a in arrays}),
    ]
    for fact, compiled, own in pairs:
        if compiled != own:
            raise InputError(
                f"{source}: compiled for {fact} = {_shown(compiled)}, the model has {_shown(own)};"
                " compile the library from this artifact's mlc-chat-config.json"
            )
    if facts.context > config.max_positions:
        raise InputError(
            f"{source}: compiled for a context of {facts.context}, the model has"
            f" {config.max_positions}; compile it from this artifact's mlc-chat-config.json"
        )


def _pairs(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(fact, library's, model's); None where one of them lacks it."""
    for fact in {**ours, **theirs}:
        yield fact, theirs.get(fact), ours.get(fact)


def _parameters(facts: CompiledFor, config: DecoderConfig, source: str) -> dict[str, str]:
    """Every parameter as "dtype [shape]"; a size that is left open is the vocabulary's."""
    sizes = {"vocab_size": config.vocab}
    try:
        return {
            item["name"]: f"{item['dtype']} {[sizes.get(n, n) for n in item['shape']]}"
            for item in facts.metadata["params"]
        }
    except (KeyError, TypeError):
        raise InputError(f"{source}: the list of parameters in it is malformed") from None


def _text(array: StoredArray) -> str:
    return f"{array.dtype.name} {list(array.shape)}"


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    return f"{value:.12g}" if isinstance(value, float) else str(value)
