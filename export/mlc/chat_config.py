"""mlc-chat-config.json, complete, and the tokenizer files beside it.

Source: mlc_llm `interface/gen_config.py` and `protocol/mlc_chat_config.py`.
"""

from __future__ import annotations

import json
from typing import Any

from edgeproof.artifact import ArtifactWriter
from edgeproof.checkpoints.special_tokens import listed
from edgeproof.errors import InputError
from export.checkpoint import Checkpoint
from export.checkpoint.generation import TEMPERATURE, TOP_P, number
from export.mlc.conversation import conversation
from export.mlc.model_config import MAX_PREFILL_CHUNK, architecture_of, model_config
from export.mlc.tokenizer_facts import read_facts

CONFIG_VERSION = "0.1.0"
# The files MLC looks for, in gen_config's order.
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer_config.json",
)
# Where generation_config.json says nothing else.
SAMPLING = {
    "temperature": TEMPERATURE,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "top_p": TOP_P,
}


def write_chat_config(checkpoint: Checkpoint, quantization: str, writer: ArtifactWriter) -> None:
    """Write mlc-chat-config.json and copy the tokenizer files.

    Raises:
        InputError: no end-of-text token, or a chat template that MLC cannot express.
    """
    config = chat_config(checkpoint, quantization)
    for name in config["tokenizer_files"]:
        writer.write(name, checkpoint.shipped(name))
    writer.write("mlc-chat-config.json", json.dumps(config, indent=2).encode())


def chat_config(checkpoint: Checkpoint, quantization: str) -> dict[str, Any]:
    """The content of mlc-chat-config.json for weights in the scheme `quantization`.

    Raises:
        InputError: no end-of-text token, a chat template that MLC cannot express, or a malformed
            tokenizer.json.
    """
    c = checkpoint.config
    facts = read_facts(checkpoint)
    special = _special_ids(checkpoint)
    generation = checkpoint.json_file("generation_config.json")
    present = checkpoint.tokenizer_files
    return {
        "version": CONFIG_VERSION,
        "model_type": architecture_of(c).name,
        "quantization": quantization,
        "model_config": model_config(c),
        "vocab_size": c.vocab,
        "context_window_size": c.max_positions,
        "sliding_window_size": -1,
        "prefill_chunk_size": min(c.max_positions, MAX_PREFILL_CHUNK),
        "attention_sink_size": -1,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "active_vocab_size": facts.vocabulary,
        **{key: number(generation.get(key), value) for key, value in SAMPLING.items()},
        "tokenizer_files": [name for name in TOKENIZER_FILES if name in present],
        "tokenizer_info": facts.info,
        "conv_template": conversation(checkpoint, listed(special["eos_token_id"]), facts.added),
        **special,
        "model_task": "chat",
        "embedding_metadata": None,
    }


def _special_ids(checkpoint: Checkpoint) -> dict[str, Any]:
    ids = checkpoint.said.role_ids
    if ids["eos_token_id"] is None:
        raise InputError(
            f"{checkpoint.path}: no end-of-text token, so generation would never stop;"
            " set eos_token_id in generation_config.json"
        )
    return ids
