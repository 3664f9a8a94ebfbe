"""PEFT adapters of tiny checkpoints, and what they compute, by hooks on PyTorch's base model.

Nothing is merged here: each layer adds to what the base gives, as the papers of LoRA and DoRA have
it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch.nn import functional as F

from edgeproof.families import read_config, whole

PREFIX = "base_model.model."
ALPHA, RANK = 12, 4


def make_lora(
    folder: Path,
    base: Path,
    modules: tuple[str, ...] = ("q_proj", "v_proj"),
    *,
    seed: int = 7,
    tensors: Mapping[str, np.ndarray] | None = None,
    dtype: Any = np.float32,
    **settings: Any,
) -> Path:
    """An adapter of the base's modules whose names end so; `tensors` are further ones.

    `settings` are of adapter_config.json. Changes are as large as the base's weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.1,
        "bias": "none",
        "target_modules": [*modules],
        **settings,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    raw = {**json.loads((base / "config.json").read_text()), "tie_word_embeddings": False}
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for parameter in whole(read_config(raw)[1]):
        module, _, kind = parameter.name.rpartition(".")
        last = module.rpartition(".")[2]
        layers = config.get("layers_to_transform")
        chosen = layers is None or parameter.layer in layers
        if kind != "weight" or last not in modules or not chosen:
            continue
        rank = next(
            (r for end, r in config.get("rank_pattern", {}).items() if module.endswith(end)),
            config["r"],
        )
        (out, ins), table = parameter.shape, last == "embed_tokens"
        names = (
            ("lora_embedding_A", "lora_embedding_B")
            if table
            else ("lora_A.weight", "lora_B.weight")
        )
        shapes = ((rank, out), (ins, rank)) if table else ((rank, ins), (out, rank))
        for name, shape in zip(names, shapes, strict=True):
            scale = 1 / math.sqrt(shape[1])
            found[f"{PREFIX}{module}.{name}"] = (scale * rng.standard_normal(shape)).astype(dtype)
        if config.get("use_dora"):
            lengths = rng.uniform(0.5, 1.5, ins if table else out).astype(dtype)
            found[f"{PREFIX}{module}.lora_magnitude_vector"] = lengths
    save_file(found | dict(tensors or {}), folder / "adapter_model.safetensors")
    return folder


def unmerged_logits(base: Path, adapters: list[tuple[Path, float]], ids: list[int]) -> np.ndarray:
    """Logits [T, V] of the base with LoRA and DoRA computed beside its layers, in float32."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for folder, weight in adapters:
        config = json.loads((folder / "adapter_config.json").read_text())
        tensors = {
            k: torch.from_numpy(v.astype(np.float32))
            for k, v in load_file(folder / "adapter_model.safetensors").items()
        }
        for name, module in model.named_modules():
            own = {
                key.removeprefix(f"{PREFIX}{name}."): value
                for key, value in tensors.items()
                if key.startswith(f"{PREFIX}{name}.lora_")
            }
            if own:
                _hook(module, own, scaling(config, name) * weight)
    with torch.no_grad():
        logits: np.ndarray = model(torch.tensor([ids])).logits[0].numpy()
    return logits


def scaling(config: Mapping[str, Any], name: str) -> float:
    """alpha / r, or / √r, of a module."""
    alpha, rank = (
        next((v for end, v in config.get(key, {}).items() if name.endswith(end)), config[usual])
        for key, usual in (("alpha_pattern", "lora_alpha"), ("rank_pattern", "r"))
    )
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _hook(module: Any, own: Mapping[str, torch.Tensor], factor: float) -> None:
    weight = module.weight.detach()
    magnitude = own.get("lora_magnitude_vector")

    def linear(_: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        a, b = own["lora_A.weight"], own["lora_B.weight"]
        added = factor * F.linear(F.linear(inputs[0], a), b)
        if magnitude is None:
            return output + added
        share = magnitude / torch.linalg.norm(weight + factor * (b @ a), dim=1)
        bias = 0 if module.bias is None else module.bias
        return torch.as_tensor(share * (output - bias + added) + bias)

    def embedding(_: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        a, b = own["lora_embedding_A"], own["lora_embedding_B"]
        added = factor * F.embedding(inputs[0], a.T) @ b.T
        if magnitude is None:
            return output + added
        share = magnitude / torch.linalg.norm(weight + factor * (b @ a).T, dim=0)
        return torch.as_tensor(share * (output + added))

    module.register_forward_hook(embedding if "lora_embedding_A" in own else linear)
