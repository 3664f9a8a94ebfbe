"""llama.cpp's architectures: what its graphs compute, and in which row order.

Source: https://github.com/ggml-org/llama.cpp, src/models/ (which tensors a graph uses) and
`llama_model_rope_type` in src/llama-model.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeproof.families.decoder import DecoderConfig, no_keys
from edgeproof.families.roles import BIASES, Role
from edgeproof.families.structure import Structure, as_llama

ALL_BIASES = frozenset(BIASES.values())
INPUT_BIASES = frozenset({Role.QUERY_BIAS, Role.KEY_BIAS, Role.VALUE_BIAS})


@dataclass(frozen=True)
class LlamaCppArchitecture:
    """One architecture.

    Attributes:
        name: `general.architecture`, and the prefix of its keys.
        rotary_pairs: Hugging Face rotates channel i of a head with i + head_dim/2; so does the
            graph, or, with `rotary_pairs`, 2i with 2i + 1: then rows are stored interleaved.
        biases: those that the graph adds.
        rope_freqs: whether it reads divisors of the rotary frequencies (scaling of type llama3).
        long_rope: whether it reads two tables of divisors and which share of channels is rotated.
        head_size: whether llama.cpp's converter always states the size of a head; else only where
            config.json has it, since transformers' class has no such key.
        lacks: keys that every architecture has in llama.cpp's converter, and this one has not.
        extents: whether llama.cpp's converter states the vocabulary's size, the number of rotated
            channels and whether a space is put before a text.
        tied: whether a head may be the embedding, and be no tensor of its own.
        square: whether all heads together must be as wide as the residual stream.
        structure: what the graph computes, from what Llama's would with the same metadata, and from
            the keys that follow, `embedding_length` and `attention.head_count` among them.
        keys: what the metadata has beyond the keys of every architecture, without the prefix:
            integers without a sign, floats, truths and texts.
    """

    name: str
    rotary_pairs: bool
    biases: frozenset[Role]
    rope_freqs: bool
    extents: bool
    tied: bool = True
    square: bool = False
    long_rope: bool = False
    head_size: bool = True
    lacks: frozenset[str] = frozenset()
    structure: Callable[[Structure, Mapping[str, Any]], Structure] = as_llama
    keys: Callable[[DecoderConfig], dict[str, Any]] = no_keys
