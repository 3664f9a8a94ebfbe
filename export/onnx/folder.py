"""Write the artifact folder: what transformers.js, Optimum and GenAI expect beside the weights.

`onnx/<file>.onnx` is the graph for transformers.js and ONNX Runtime. Optimum and GenAI cannot feed
num_logits_to_keep, transformers.js only uses it where the graph requires it, so the folder's root
has the same graph without that input, over the same data files: Optimum's own layout.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np

from edgeproof.artifact import ArtifactWriter
from edgeproof.checkpoints.settings import SETTINGS, shipped_settings
from edgeproof.families.context import bounded
from export.checkpoint import Checkpoint, CheckpointFolder, recovered_grids
from export.context import within_context
from export.format import Advance
from export.onnx.decoder import GraphParts, build_decoder
from export.onnx.genai import genai_config
from export.onnx.recipe import FUSED, RECOVERED, Recipe
from export.onnx.recovered import recovered_parts
from export.onnx.schemes import STYLES, table_storage
from export.onnx.weights import place, write_weights
from export.rounding import rounder_of

log = logging.getLogger(__name__)

FOLDER = "onnx/"
# transformers.js derives these from its dtype argument (`DEFAULT_DTYPE_SUFFIX_MAPPING`).
GRAPH_FILES = {
    "fp32": "model.onnx",
    "fp16": "model_fp16.onnx",
    "q8": "model_quantized.onnx",
    "int8": "model_int8.onnx",
    "uint8": "model_uint8.onnx",
    "q4": "model_q4.onnx",
    "q4f16": "model_q4f16.onnx",
    "bnb4": "model_bnb4.onnx",
}


def write_folder(
    checkpoint: Checkpoint, recipe: Recipe, writer: ArtifactWriter, advance: Advance
) -> None:
    """Write graphs, weights, config and tokenizer files of one variant.

    Raises:
        InputError: a value is not finite, or overflows the variant's type; the importance matrix is
            another model's.
    """
    checkpoint = within_context(checkpoint, bounded(checkpoint.config, windows=True))
    file = GRAPH_FILES[recipe.dtype]
    parts = _parts(checkpoint, recipe)
    graphs = {
        folder: build_decoder(
            checkpoint.config,
            checkpoint.parameters,
            parts,
            choose_logits=folder == FOLDER,
            residual_scale=recipe.residual_scale,
        )
        for folder in (FOLDER, "")
    }
    placements = place(list(graphs[FOLDER].stored.values()), f"{file}_data")
    chunks = write_weights(placements, FOLDER, checkpoint, writer, advance)
    for folder, graph in graphs.items():
        model = graph.model(checkpoint.config.family, placements, "" if folder else FOLDER)
        writer.write(f"{folder}{file}", model.SerializeToString(deterministic=True))
    config = config_json(checkpoint, recipe.dtype, recipe.activations, file, chunks)
    writer.write("config.json", config)
    writer.write(
        "genai_config.json", genai_config(checkpoint, file, in_place=recipe.graph == FUSED)
    )
    for name in checkpoint.tokenizer_files:
        writer.write(name, checkpoint.shipped(name))
    if SETTINGS not in checkpoint.tokenizer_files:
        log.warning("%s: no %s, one that says nothing new is added", checkpoint.path, SETTINGS)
        writer.write(SETTINGS, json.dumps(shipped_settings(checkpoint.settings), indent=2).encode())


def _parts(checkpoint: Checkpoint, recipe: Recipe) -> GraphParts:
    dtype, style = np.dtype(recipe.activations), STYLES[recipe.graph]
    rounder = rounder_of(recipe.rounding, checkpoint.parameters)
    if recipe.linear == RECOVERED:
        grids = recovered_grids(checkpoint)
        return recovered_parts(grids, dtype, rounder, style.operators, native=recipe.native)
    return GraphParts(
        dtype,
        style.linears[recipe.linear](dtype, rounder),
        table_storage(recipe.embedding, dtype, rounder, native=recipe.native),
        style.operators,
    )


def config_json(
    checkpoint: CheckpointFolder, dtype: str, kv_cache: str, file: str, chunks: int
) -> bytes:
    """The checkpoint's config.json plus what transformers.js must know to load the graph."""
    config: dict[str, Any] = dict(checkpoint.raw_config)
    config["transformers.js_config"] = {
        **config.get("transformers.js_config", {}),
        "use_external_data_format": {file: chunks},
        "kv_cache_dtype": {dtype: kv_cache},
    }
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
