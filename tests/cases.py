"""Checkpoints that people really have: the smallest that has each quirk of public reports."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import processors

from tests.tiny import SPECIAL, write_weights

# Changes a healthy checkpoint; returns the folder to export where that is another one.
Change = Callable[[Path], Path | None]
CONFIG, GENERATION, CARD = "config.json", "generation_config.json", "README.md"
SETTINGS, TOKENIZER, WEIGHTS = "tokenizer_config.json", "tokenizer.json", "model.safetensors"
TEMPLATE = "chat_template.jinja"
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
CHATML_IN_GENERATION = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}"
    "{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}"
    "{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
HEADERS = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + "
    "'<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
THINKS = (
    "{% for m in messages %}{% set c = m['content'] %}"
    "{% if m['role'] == 'assistant' and '</think>' in c %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + c + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
DATED = "{{ '<|im_start|>system\nToday: ' + strftime_now('%d %b %Y') + '<|im_end|>\n' }}"
TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}"
CALLS = (
    "{% for message in messages %}{% if message.tool_calls %}"
    "{{ message.tool_calls[0].function.name }}{% endif %}"
    "{% if message.role == 'tool' %}{{ '<tool_response>' }}{% endif %}"
)
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_WORDS = QWEN2_WORDS.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
CARDS = {
    "quirks": b"\xef\xbb\xbf---\r\nlicense: other\r\nlicense_name: my: licence\r\nlanguage:\r\n"
    b"- no\r\ntags:\r\n- a\r\n- [b, c]\r\nbase_model: 1\r\nmodel_name: 'x'\r\n---\r\n# hi\r\n",
    "types": b"---\nlicense: [mit, apache-2.0]\nlanguage: no\ntags: llama\nbase_model:\n- a/b\n"
    b"- null\n- {name: c}\ndatasets: null\nname: 2024-01-01\nversion: 1.0\nauthor: {a: b}\n---\n",
}


def configured(**changes: Any) -> Change:
    """Other keys of config.json; `...` takes one away."""
    return partial(keys, CONFIG, **changes)


def settled(**changes: Any) -> Change:
    return partial(keys, SETTINGS, **changes)


def generating(**changes: Any) -> Change:
    return partial(keys, GENERATION, **changes)


def both(*parts: Change) -> Change:
    def change(folder: Path) -> None:
        for part in parts:
            part(folder)

    return change


def weighed(change: Callable[[dict[str, np.ndarray]], Any], **how: Any) -> Change:
    """Other tensors: what `change` returns, or made of what it is given."""

    def write(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        write_weights(folder, change(found) or found, **how)
        if how.get("shards", 1) > 1:
            (folder / WEIGHTS).unlink()

    return write


def tokenized(change: Callable[[dict[str, Any]], Any]) -> Change:
    def write(folder: Path) -> None:
        document = json.loads((folder / TOKENIZER).read_text("utf-8"))
        change(document)
        (folder / TOKENIZER).write_text(json.dumps(document), "utf-8")

    return write


def put(name: str, data: str | bytes) -> Change:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)

    return write


def removed(*names: str) -> Change:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


def added(*tokens: dict[str, Any]) -> Change:
    """Tokens of tokenizer.json, from the vocabulary's end on where they name no id."""

    def add(document: dict[str, Any]) -> None:
        size = len(document["model"]["vocab"])
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for number, token in enumerate(tokens):
            item = {"id": size + number, **flags, "special": True, **token}
            document["added_tokens"].append(item)

    return tokenized(add)


def split_by(pattern: str, *, nfc: bool) -> Change:
    def change(document: dict[str, Any]) -> None:
        split = {
            "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False,
        }  # fmt: skip
        level = {
            "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
            "use_regex": False,
        }  # fmt: skip
        document["normalizer"] = {"type": "NFC"} if nfc else None
        document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, level]}
        document["model"]["ignore_merges"] = False

    return tokenized(change)


def around(single: str) -> Change:
    tokens = [(text, SPECIAL.index(text)) for text in SPECIAL]
    made = processors.TemplateProcessing(single=single, special_tokens=tokens)
    return tokenized(lambda raw: raw.update(post_processor=json.loads(made.__getstate__())))


def keys(name: str, folder: Path, **changes: Any) -> None:
    raw = {**json.loads((folder / name).read_text("utf-8")), **changes}
    kept = {key: value for key, value in raw.items() if value is not ...}
    (folder / name).write_text(json.dumps(kept), "utf-8")


def stale_index(folder: Path, *, keep: bool) -> None:
    found = load_file(folder / WEIGHTS)
    write_weights(folder, {name: value + 1 for name, value in found.items()}, shards=2)
    if not keep:
        removed("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")(folder)


def stray_shard(folder: Path) -> None:
    weighed(lambda found: None, shards=2)(folder)
    stray = {"model.norm.weight": np.ones(64, np.float32)}
    save_file(stray, folder / "model-00003-of-00003.safetensors")


def header(
    folder: Path, change: Callable[[dict[str, Any]], Any] = lambda header: None, pad: int = 0
) -> None:
    """Another header; `pad` is by how many bytes its end misses a multiple of eight."""
    data = (folder / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8 + pad)
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def adapter(folder: Path, *, alone: bool) -> None:
    (folder / WEIGHTS).unlink()
    if alone:
        (folder / CONFIG).unlink()
    facts = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8,
        "base_model_name_or_path": "some-org/some-base", "target_modules": ["q_proj", "v_proj"],
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(facts))
    at = "base_model.model.model.layers.0.self_attn.q_proj.lora"
    parts = {f"{at}_A.weight": np.ones((4, 64), "f4"), f"{at}_B.weight": np.ones((64, 4), "f4")}
    save_file(parts, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "training_args.bin").write_bytes(b"PK\x03\x04")


def quantised(method: str, *, stored: bool) -> Change:
    def change(folder: Path) -> None:
        told = {"quant_method": method, "bits": 4, "group_size": 32, "load_in_4bit": True}
        keys(CONFIG, folder, quantization_config=told)
        if stored:
            name = "model.layers.0.mlp.up_proj.qweight"
            weighed(lambda found: {**found, name: np.ones((2, 2), np.int32)})(folder)

    return change


def biases(found: dict[str, np.ndarray]) -> None:
    for layer in range(3):
        for name, rows in (("q", 64), ("k", 32), ("v", 32)):
            bias = np.linspace(-0.5, 0.5, rows, dtype=np.float32)
            found[f"model.layers.{layer}.self_attn.{name}_proj.bias"] = bias


def hub_cache(folder: Path) -> Path:
    """snapshots/<commit>/<name> are symlinks into blobs/."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    root = folder.with_name("models--some-org--Tiny-1M-Instruct")
    snapshot, blobs = root / "snapshots" / commit, root / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.move(path, blobs / f"{number:064x}")
        (snapshot / path.name).symlink_to(os.path.relpath(blobs / f"{number:064x}", snapshot))
    return snapshot


def linked(folder: Path) -> Path:
    folder.with_name("latest").symlink_to(folder.name)
    return folder.with_name("latest")


def trainer(folder: Path) -> None:
    for step in (500, 1000):
        shutil.copytree(folder, folder.with_name(f"checkpoint-{step}"))
    shutil.rmtree(folder)
    folder.mkdir()
    for step in (500, 1000):
        shutil.move(folder.with_name(f"checkpoint-{step}"), folder)


QWEN2 = both(configured(architectures=["Qwen2ForCausalLM"], model_type="qwen2"), weighed(biases))
TOKEN = {"__type": "AddedToken", "lstrip": False, "normalized": True, "rstrip": False}
FLAGS = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
FIXED = {
    "strategy": {"Fixed": 24}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 2,
    "pad_type_id": 0, "pad_token": "<|im_end|>",
}  # fmt: skip
CUT = {"direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0}
NOTHING = {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}
NO_IDS = configured(bos_token_id=..., eos_token_id=..., pad_token_id=...)
HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
BF16 = ml_dtypes.bfloat16


def grown(found: dict[str, np.ndarray]) -> None:
    found[EMBEDDING] = np.concatenate([found[EMBEDDING], found[EMBEDDING][:1]])


def mixed(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As 16-bit merges of 4-bit bases leave it: some projections float32, the others bfloat16."""
    wide = ".q_proj.weight"
    return {name: v if name.endswith(wide) else v.astype(BF16) for name, v in found.items()}


def head(values: np.ndarray | None = None) -> Callable[[dict[str, np.ndarray]], None]:
    """A head in the file: the embedding's values, or others."""

    def add(found: dict[str, np.ndarray]) -> None:
        found[HEAD] = found[EMBEDDING].copy() if values is None else values

    return add


def pruned(document: dict[str, Any]) -> None:
    del document["model"]["vocab"]["".join(document["model"]["merges"][-1])]


def merges_as_text(document: dict[str, Any]) -> None:
    document["model"]["merges"] = [" ".join(merge) for merge in document["model"]["merges"]]


def vocab_and_merges(folder: Path) -> None:
    model = json.loads((folder / TOKENIZER).read_text("utf-8"))["model"]
    (folder / TOKENIZER).unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(" ".join(merge) for merge in model["merges"]))
