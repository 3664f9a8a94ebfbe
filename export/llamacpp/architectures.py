"""The architecture in llama.cpp of a decoder, which must compute what the decoder does."""

from __future__ import annotations

from edgeproof.errors import InputError
from edgeproof.families import DecoderConfig, family
from edgeproof.families.llama_cpp import LlamaCppArchitecture
from edgeproof.families.structure import differences, plain_structure

INSTEAD = "export this model to ONNX instead"


def architecture_of(config: DecoderConfig) -> LlamaCppArchitecture:
    """Its family's architecture.

    Raises:
        InputError: llama.cpp has none.
    """
    architecture = family(config.family).llama_cpp
    if architecture is None:
        raise InputError(f"llama.cpp has no architecture for {config.family!r}; {INSTEAD}")
    return architecture


def check_structure(config: DecoderConfig) -> None:
    """Refuse a decoder that llama.cpp's graph does not compute.

    Raises:
        InputError: naming the first difference.
    """
    architecture = architecture_of(config)
    if config.tied and not architecture.tied:
        raise InputError(
            f"tie_word_embeddings: llama.cpp's {architecture.name} has no tied head; {INSTEAD}"
        )
    if architecture.square and config.heads * config.head_dim != config.hidden:
        raise InputError(
            f"{config.heads} heads of {config.head_dim} beside {config.hidden} channels:"
            f" llama.cpp's {architecture.name} has not that; {INSTEAD}"
        )
    plain = plain_structure(config.layers, config.head_dim, config.rope)
    sizes = {"embedding_length": config.hidden, "attention.head_count": config.heads}
    runtime = architecture.structure(plain, {**sizes, **architecture.keys(config)})
    for difference in differences(config.structure, runtime):
        raise InputError(
            f"{difference}: llama.cpp's {architecture.name} does not compute that; {INSTEAD}"
        )
