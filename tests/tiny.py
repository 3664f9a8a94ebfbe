"""Tiny random Llama checkpoints in Hugging Face layout, generated without torch or network."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from edgeproof.families import Parameter, read_config

DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a tiny test model<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TRAINING_TEXT = [
    "The capital of France is Paris, and 42 is a number.",
    "def add(a, b):\n    return a + b\n",
    "Once upon a time there was a tiny model that counted 1, 2, 3.",
]
VOCAB = 384


def long_texts(count: int = 12) -> list[str]:
    """Texts that nearly fill the context of 256 tokens, no two of which begin alike.

    So many that gates can be decided: two of three positions of a tiny model are clear.
    """
    words = " ".join(TRAINING_TEXT).split()
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(words, 160)) for _ in range(count)]


def config(**changes: Any) -> dict[str, Any]:
    """config.json of a tiny model: 3 layers, 64 channels, 4 heads over 2 key/value heads.

    Changes are copied: transformers writes into the settings that it is given.
    """
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "torch_dtype": "float32",
        **copy.deepcopy(changes),
    }


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 32}
OLMO2: dict[str, Any] = {
    "architectures": ["Olmo2ForCausalLM"],
    "model_type": "olmo2",
    "tie_word_embeddings": False,
}
SMOLLM3 = {
    "architectures": ["SmolLM3ForCausalLM"],
    "model_type": "smollm3",
    "num_hidden_layers": 4,
}
GRANITE = {
    "architectures": ["GraniteForCausalLM"],
    "model_type": "granite",
    "embedding_multiplier": 12.0,
    "attention_multiplier": 0.1,
    "residual_multiplier": 0.22,
    "logits_scaling": 8.0,
}
# As Phi-4-mini, in small: half of a head's 32 channels rotate, by 8 pairs of divisors.
PHI3: dict[str, Any] = {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "hidden_size": 128,
    "max_position_embeddings": 1024,
    "original_max_position_embeddings": 256,
    "partial_rotary_factor": 0.5,
    "rope_scaling": {
        "type": "longrope",
        "short_factor": [1.0, 1.05, 1.1, 1.2, 1.4, 1.7, 2.0, 2.5],
        "long_factor": [1.0, 1.3, 1.9, 2.8, 4.0, 6.0, 9.0, 12.0],
    },
}
GEMMA3: dict[str, Any] = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "num_hidden_layers": 7,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "hidden_activation": "gelu_pytorch_tanh",
    "sliding_window": 16,
    "rope_theta": 1e6,
    "rope_local_base_freq": 20000.0,
    "rope_scaling": {"rope_type": "linear", "factor": 4.0},
    "rms_norm_eps": 1e-6,
}
# Decoders that are not quite Llama's, each with what its runtimes' own definitions can have.
OTHERS = {"olmo2": OLMO2, "smollm3": SMOLLM3, "granite": GRANITE}
# The decoders that every runtime must compute as PyTorch does: changes of `config`.
FAMILIES: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tie_word_embeddings": False, "num_key_value_heads": 4},
    "wide heads": {"head_dim": 32, "dtype": "BF16", "shards": 2},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "attention bias": {"attention_bias": True, "tie_word_embeddings": False},
    "llama3 rope": {"rope_scaling": LLAMA3_ROPE},
    "llama3 rope of transformers 5": {
        "rope_parameters": {**LLAMA3_ROPE, "rope_theta": 500000.0, "factor": 5.0},
        "head_dim": 64,
    },
    "linear rope": {"rope_scaling": {"type": "linear", "factor": 2.5}},
    "mistral": {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "sliding_window": None,
        "head_dim": 32,
    },
    "qwen2": QWEN2,
    "qwen2 untied": {**QWEN2, "tie_word_embeddings": False, "dtype": "BF16", "shards": 2},
    "qwen2 linear rope": {**QWEN2, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "qwen3": QWEN3,
    "qwen3 untied": {**QWEN3, "tie_word_embeddings": False, "dtype": "BF16", "shards": 2},
}


@cache
def tokenizer_text() -> str:
    """tokenizer.json: a byte-level BPE with SmolLM's digit splitting, trained in-process."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    return str(tokenizer.to_str(pretty=True))


def write_tokenizer(folder: Path) -> None:
    """Write that tokenizer, and its settings."""
    (folder / "tokenizer.json").write_text(tokenizer_text(), "utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "model_max_length": 256,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    (folder / "generation_config.json").write_text(json.dumps(generation))


def weight(parameter: Parameter, rng: np.random.Generator) -> np.ndarray:
    """Random values of the scale that keeps activations near one: norms near 1, linears 1/√in.

    Biases are large enough that a misplaced one shows.
    """
    if parameter.name.endswith(".bias"):
        return (0.5 * rng.standard_normal(parameter.shape)).astype(np.float32)
    if len(parameter.shape) == 1:
        return (1 + 0.1 * rng.standard_normal(parameter.shape)).astype(np.float32)
    scale = 1.0 if parameter.role.value == "embedding" else 1.5 / np.sqrt(parameter.shape[1])
    return (scale * rng.standard_normal(parameter.shape, dtype=np.float32)).astype(np.float32)


def make_checkpoint(
    folder: Path, *, dtype: str = "F32", shards: int = 1, seed: int = 0, **changes: Any
) -> Path:
    """Write a complete checkpoint; `changes` override config.json. Same arguments, same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = config(**changes)
    (folder / "config.json").write_text(json.dumps(raw, indent=2))
    write_tokenizer(folder)
    rng = np.random.default_rng(seed)
    _, parameters = read_config(raw)
    tensors: dict[str, np.ndarray] = {}
    for p in parameters:
        values, name = weight(p, rng).astype(DTYPES[dtype]), p.within or p.name
        held = (tensors[name], values) if name in tensors else (values,)
        tensors[name] = np.concatenate(held)
    write_weights(folder, tensors, shards)
    return folder


def write_weights(folder: Path, tensors: dict[str, np.ndarray], shards: int = 1) -> None:
    """Write tensors as one safetensors file, or as shards with an index."""
    names = list(tensors)
    parts = [names[start::shards] for start in range(shards)]
    files = [
        "model.safetensors" if shards == 1 else f"model-{i + 1:05}-of-{shards:05}.safetensors"
        for i in range(shards)
    ]
    for file, part in zip(files, parts, strict=True):
        data = {name: np.ascontiguousarray(tensors[name]) for name in part}
        save_file(data, folder / file, {"format": "pt"})
    if shards > 1:
        index = {
            "metadata": {},
            "weight_map": {n: f for f, part in zip(files, parts, strict=True) for n in part},
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def change_json(path: Path, **changes: Any) -> None:
    """Replace or add keys of a JSON object."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
