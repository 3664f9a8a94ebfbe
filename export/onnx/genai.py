"""genai_config.json: with it, ONNX Runtime GenAI (phones, C#, Java) opens the artifact's folder.

Keys: onnxruntime-genai 0.18, `models/builders/base.py`, `make_genai_config`. It opens the graph at
the folder's root, since it cannot feed num_logits_to_keep.
"""

from __future__ import annotations

import json
from typing import Any

from edgeproof.checkpoints.special_tokens import listed
from export.checkpoint import Checkpoint
from export.checkpoint.generation import TEMPERATURE, TOP_P, number

# GenAI's own names of the inputs and outputs that our graph has; it makes no other.
INPUTS = {
    "input_ids": "input_ids",
    "attention_mask": "attention_mask",
    "past_key_names": "past_key_values.%d.key",
    "past_value_names": "past_key_values.%d.value",
}
OUTPUTS = {
    "logits": "logits",
    "present_key_names": "present.%d.key",
    "present_value_names": "present.%d.value",
}
# GenAI's type for any decoder with a KV cache; the others are names of families that it knows.
MODEL_TYPE = "decoder"


def genai_config(checkpoint: Checkpoint, file: str, *, in_place: bool) -> bytes:
    """The content of genai_config.json for the root graph `file`.

    `in_place`: its attention can write new keys and values into a cache of full length
    (GroupQueryAttention) instead of copying what came before.

    Sampling is generation_config.json's, else the model cards' recommendation; top_k 0 is none.

    Raises:
        InputError: a JSON file of the checkpoint is malformed.
    """
    c = checkpoint.config
    generation = checkpoint.json_file("generation_config.json")
    config: dict[str, Any] = {
        "model": {
            "type": MODEL_TYPE,
            "vocab_size": c.vocab,
            "context_length": c.max_positions,
            **_ids(checkpoint),
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": file,
                "hidden_size": c.hidden,
                "head_size": c.head_dim,
                "num_attention_heads": c.heads,
                "num_key_value_heads": c.kv_heads,
                "num_hidden_layers": c.layers,
                "inputs": INPUTS,
                "outputs": OUTPUTS,
            },
        },
        "search": {
            "do_sample": generation.get("do_sample") is not False,
            "temperature": number(generation.get("temperature"), TEMPERATURE),
            "top_p": number(generation.get("top_p"), TOP_P),
            "top_k": int(number(generation.get("top_k"), 0)),
            "repetition_penalty": number(generation.get("repetition_penalty"), 1.0),
            "max_length": c.max_positions,
            "past_present_share_buffer": in_place,
        },
    }
    return (json.dumps(config, indent=2) + "\n").encode()


def _ids(checkpoint: Checkpoint) -> dict[str, Any]:
    """bos, eos and pad ids; without a pad token, GenAI takes the first end token for it."""
    ids = checkpoint.said.role_ids
    ends = listed(ids["eos_token_id"])
    if ids["pad_token_id"] is None and ends:
        ids["pad_token_id"] = ends[0]
    return {name: value for name, value in ids.items() if value is not None}
