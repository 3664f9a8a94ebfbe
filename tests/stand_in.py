"""Structure-only stand-ins with published SmolLM dimensions; their values mean nothing."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from edgeproof.families import read_config
from tests.tiny import config, write_tokenizer

SMOLLM_1_7B = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 49152,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
}


def make_stand_in(folder: Path, shards: int = 4) -> Path:
    """A sharded bfloat16 checkpoint of SmolLM-1.7B's shape: 3.4 GB, one shard in memory at most."""
    folder.mkdir(parents=True)
    raw = config(**SMOLLM_1_7B)
    (folder / "config.json").write_text(json.dumps(raw))
    write_tokenizer(folder)
    _, parameters = read_config(raw)
    pattern = np.random.default_rng(0).normal(0, 0.02, 1 << 20).astype(ml_dtypes.bfloat16)
    weight_map = {}
    for index in range(shards):
        file = f"model-{index + 1:05}-of-{shards:05}.safetensors"
        part = parameters[index::shards]
        save_file({p.name: np.resize(pattern, p.shape) for p in part}, folder / file)
        weight_map |= {p.name: file for p in part}
    index_file = folder / "model.safetensors.index.json"
    index_file.write_text(json.dumps({"weight_map": weight_map}))
    return folder
