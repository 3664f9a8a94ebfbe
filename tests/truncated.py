"""The first layers of the real bundled model, as a checkpoint of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from export.sources import resolve

# In the twelfth layer the real residual stream jumps to its peak, some 25,000.
LAYERS = 12
# Enough ids for real words; the other rows of the embedding would only be copied about.
VOCAB = 4096


def make_truncated(folder: Path) -> Path:
    """Write a checkpoint with the real weights of the first `LAYERS` layers and `VOCAB` ids."""
    source = resolve("bundled", None).path
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(source / name, folder)
    config = json.loads((source / "config.json").read_text("utf-8"))
    config |= {"num_hidden_layers": LAYERS, "vocab_size": VOCAB}
    (folder / "config.json").write_text(json.dumps(config))
    (weights,) = source.glob("*.safetensors")
    tensors = {
        name: values[:VOCAB] if name.endswith("embed_tokens.weight") else values
        for name, values in load_file(weights).items()
        if not name.startswith("model.layers.") or int(name.split(".")[2]) < LAYERS
    }
    half = {name: np.ascontiguousarray(values, np.float16) for name, values in tensors.items()}
    save_file(half, folder / "model.safetensors")
    return folder
