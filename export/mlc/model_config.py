"""`model_config` of mlc-chat-config.json, for decoders that MLC's model definition computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgeproof.errors import InputError
from edgeproof.families import DecoderConfig, family
from edgeproof.families.mlc import ROPE_SCALING, MlcArchitecture, rope_scaling
from edgeproof.families.structure import differences, plain_structure

# mlc_llm's own default; longer prompts are prefilled in chunks.
MAX_PREFILL_CHUNK = 8192
MAX_BATCH = 128
INSTEAD = "export this model to GGUF or ONNX instead"


def architecture_of(config: DecoderConfig) -> MlcArchitecture:
    """The model definition of a decoder's family.

    Raises:
        InputError: MLC has none, or none that is known here.
    """
    found = family(config.family)
    if found.mlc is None and found.mlc_differs is not None:
        raise InputError(f"MLC: {found.mlc_differs}; {INSTEAD}")
    if found.mlc is None:
        raise _unsupported(f"architecture {config.family!r}")
    return found.mlc


def model_config(c: DecoderConfig) -> dict[str, Any]:
    """The dimensions that a model library is compiled for.

    The rotary base is always written: without it MLC's Llama assumes 10000.
    """
    architecture = architecture_of(c)
    llamas = {
        "hidden_size": c.hidden,
        "intermediate_size": c.intermediate,
        "num_attention_heads": c.heads,
        "num_hidden_layers": c.layers,
        "rms_norm_eps": c.norm_eps,
        "vocab_size": c.vocab,
        "tie_word_embeddings": c.tied,
        architecture.theta: int(c.rope.theta) if c.rope.theta % 1 == 0 else c.rope.theta,
        ROPE_SCALING: rope_scaling(c.rope.scaling),
        "context_window_size": c.max_positions,
        "prefill_chunk_size": min(c.max_positions, MAX_PREFILL_CHUNK),
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "max_batch_size": MAX_BATCH,
        "disaggregation": False,
    }
    stated = {key: value for key, value in llamas.items() if key not in architecture.lacks}
    return {**stated, **architecture.keys(c)}


def check_structure(config: DecoderConfig) -> None:
    """Refuse what MLC would not compute from the config written here.

    Raises:
        InputError: naming the first feature.
    """
    architecture = architecture_of(config)
    stated = model_config(config)
    if config.biased != architecture.biases(stated):
        raise _unsupported("biases of linear layers")
    if architecture.square and config.heads * config.head_dim != config.hidden:
        raise _unsupported(
            f"{config.heads} heads of {config.head_dim} beside {config.hidden} channels"
        )
    plain = plain_structure(config.layers, config.head_dim, replace(config.rope, scaling=None))
    for difference in differences(config.structure, architecture.structure(plain, stated)):
        raise _unsupported(difference)


def _unsupported(feature: str) -> InputError:
    return InputError(f"MLC: {feature} is not supported yet; {INSTEAD}")
