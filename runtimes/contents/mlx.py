"""What the files of an MLX folder have to say to mlx_lm.

Source: https://github.com/ml-explore/mlx-lm, mlx_lm/utils.py (`load_model`, `save_model`) and
mlx_lm/models/ (`ModelArgs`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgeproof.artifact import Artifact
from edgeproof.artifact.json_file import read_json
from edgeproof.checkpoints.settings import shipped_settings
from edgeproof.checkpoints.special_tokens import CONFIG
from edgeproof.families import Role
from edgeproof.families.rope import Llama3Scaling
from runtimes.contents.counted import counted
from runtimes.contents.expectation import Exercised
from runtimes.contents.files import SETTINGS, TOPICS, Content, copied, copied_of
from runtimes.contents.origin import Origin
from runtimes.weights.mlx import SUFFIX
from runtimes.weights.safetensors_file import entries

INDEX = "model.safetensors.index.json"
END, QUANTISED = "eos_token_id", "quantization"
READ = Exercised("the model runs on it, and its weights are compared")
# Keys of a checkpoint that are not to be there: mlx_lm would run code, or see other windows.
ABSENT = ("model_file", "auto_map", "_name_or_path", "layer_types", "sliding_window")
# Keys that one model of mlx_lm asks for, by `model_type` → what transformers assumes without.
MULTIPLIERS = dict.fromkeys(
    ("attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling"), 1.0
)


def contents(artifact: Artifact, origin: Origin) -> Iterator[Content]:
    """Every file."""
    if artifact.foreign is not None:
        return  # settings that decide are compared by what they do: tokenizer, template, stops
    paths = artifact.files(SUFFIX)
    stored = {path.name: entries(path) for path in paths}
    for name in stored:
        yield Content(name, None, READ)
    config = read_json(artifact.path / CONFIG)
    yield Content(CONFIG, config, _config(origin, config.get(QUANTISED)))
    placed = {tensor: name for name, found in stored.items() for tensor in found}
    size = sum(entry.nbytes for found in stored.values() for entry in found.values())
    yield counted(artifact, origin, size)
    parameters = sum(item.size for item in origin.family.parameters(origin.decoder))
    metadata = {"total_size": size, "total_parameters": parameters}
    expected = {"metadata": metadata, "weight_map": placed}
    yield Content(INDEX, read_json(artifact.path / INDEX), expected)
    yield from copied(artifact.path, origin, copied_of(origin))
    if not origin.has(SETTINGS):
        said = read_json(artifact.path / SETTINGS)
        yield Content(SETTINGS, said, shipped_settings(origin.settings), TOPICS[SETTINGS])


def _config(origin: Origin, quantised: Any) -> dict[str, Any]:
    """The checkpoint's own, and what mlx_lm would assume otherwise.

    Which layers are `quantised` and how is said twice: mlx_lm reads the first, others the second.
    """
    decoder, own = origin.decoder, origin.config
    return {
        **{key: value for key, value in own.items() if key not in ABSENT},
        "head_dim": decoder.head_dim,
        "num_key_value_heads": decoder.kv_heads,
        "max_position_embeddings": origin.facts["context"],
        "rms_norm_eps": decoder.norm_eps,
        "rope_theta": decoder.rope.theta,
        "rope_scaling": _scaling(origin),
        "tie_word_embeddings": decoder.tied,
        "attention_bias": Role.OUTPUT in decoder.biased,
        "mlp_bias": Role.DOWN in decoder.biased,
        END: origin.generation_id("eos") if own.get(END) is None else own[END],
        **_of_model(origin),
        QUANTISED: READ,
        **({} if quantised is None else {f"{QUANTISED}_config": quantised}),
    }


def _scaling(origin: Origin) -> dict[str, Any] | None:
    scaling = origin.decoder.rope.scaling
    if scaling is None:
        return None
    found = {"rope_type": scaling.kind, "factor": scaling.factor}
    if isinstance(scaling, Llama3Scaling):
        found |= {
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_positions,
        }
    return found


def _of_model(origin: Origin) -> dict[str, Any]:
    kind = origin.config["model_type"]
    if kind == "granite":
        return {key: origin.config.get(key, value) for key, value in MULTIPLIERS.items()}
    if kind == "smollm3":
        layers = origin.decoder.structure.layers
        return {"no_rope_layers": [0 if layer.rope is None else 1 for layer in layers]}
    return {}
