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
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgeproof.errors import InputError
from export.architecture import DecoderConfig
from export.mlc.shards import StoredArray
from export.mlc.vm_executable import Executable, find_executable
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
class ModelLibrary:
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


def read_model_library(module: bytes, source: str) -> ModelLibrary:
    """Read a .wasm; `source` names it in errors.

    Raises:
        InputError: not a model library, or not of a layout that is known.
    """
    executable = find_executable(initial_memory(module, source), source)
    texts = [c for c in executable.constants if isinstance(c, bytes) and c.startswith(METADATA)]
    try:
        metadata = json.loads(texts[0])
        library = ModelLibrary(metadata, _attention(executable))
        whole = (library.context, library.prefill_chunk, library.temporary_bytes)
        complete = isinstance(metadata["params"], list) and min(whole[:2]) > 0
    except (IndexError, KeyError, ValueError, TypeError, AttributeError):
        complete = False
    if not complete:
        raise InputError(
            f"{source}: what this model library was compiled for cannot be read; compile it with a"
            " current mlc_llm from this artifact's mlc-chat-config.json"
        )
    return library


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


def check_model_library(
    library: ModelLibrary,
    config: DecoderConfig,
    quantization: str,
    arrays: Iterable[StoredArray],
    source: str,
) -> None:
    """Refuse a library that was compiled for another model, scheme or longer context.

    Raises:
        InputError: naming the first fact that differs.
    """
    ours = {"model_type": config.family, "quantization": quantization, "sliding_window_size": -1}
    pairs = [
        *_pairs({key: library.metadata.get(key) for key in ours}, ours),
        *_pairs(
            library.attention,
            {
                "num_attention_heads": config.heads,
                "num_key_value_heads": config.kv_heads,
                "head_dim": config.head_dim,
                "rope_scale": 1,
                "position_embedding_base": config.rope_theta,
            },
        ),
        *_pairs(_parameters(library, config, source), {a.name: _text(a) for a in arrays}),
    ]
    for fact, compiled, own in pairs:
        if compiled != own:
            raise InputError(
                f"{source}: compiled for {fact} = {_shown(compiled)}, the model has {_shown(own)};"
                " compile the library from this artifact's mlc-chat-config.json"
            )
    if library.context > config.max_positions:
        raise InputError(
            f"{source}: compiled for a context of {library.context}, the model has"
            f" {config.max_positions}; compile it from this artifact's mlc-chat-config.json"
        )


def _pairs(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(fact, library's, model's); None where one of them lacks it."""
    for fact in {**ours, **theirs}:
        yield fact, theirs.get(fact), ours.get(fact)


def _parameters(library: ModelLibrary, config: DecoderConfig, source: str) -> dict[str, str]:
    """Every parameter as "dtype [shape]"; a size that is left open is the vocabulary's."""
    sizes = {"vocab_size": config.vocab}
    try:
        return {
            item["name"]: f"{item['dtype']} {[sizes.get(n, n) for n in item['shape']]}"
            for item in library.metadata["params"]
        }
    except (KeyError, TypeError):
        raise InputError(f"{source}: the list of parameters in it is malformed") from None


def _text(array: StoredArray) -> str:
    return f"{array.dtype.name} {list(array.shape)}"


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    return f"{value:.12g}" if isinstance(value, float) else str(value)
