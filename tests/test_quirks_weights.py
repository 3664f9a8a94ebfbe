"""Checkpoints that people really have: which weights count, and what their config leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgeproof.errors import InputError
from export.checkpoint import open_checkpoint
from export.targets import Target
from runtimes.parity.inputs import recorded_inputs
from runtimes.pytorch.loading import load_model
from tests.exported import export_tiny
from tests.tiny import change_json, make_checkpoint, write_weights

INDEX = "model.safetensors.index.json"


def tensors(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def same_as_transformers(folder: Path) -> None:
    """Every weight that is exported is the one that the reference runs."""
    checkpoint = open_checkpoint(folder)
    model = dict(load_model(folder).named_parameters())
    assert {p.name for p in checkpoint.parameters} == model.keys()
    for p in checkpoint.parameters:
        stored = np.concatenate(list(checkpoint.blocks(Target(p.name, (p,), p.shape))))
        assert np.array_equal(stored.astype(np.float32), model[p.name].numpy())


def stale_index(folder: Path, *, keep: bool) -> None:
    """Saved as shards once, then as one file with other values."""
    found = tensors(folder)
    write_weights(folder, {name: value + 1 for name, value in found.items()}, shards=2)
    for shard in folder.glob("model-*.safetensors"):
        if not keep:
            shard.unlink()


def stray_shard(folder: Path) -> None:
    found = tensors(folder)
    (folder / "model.safetensors").unlink()
    write_weights(folder, found, shards=2)
    save_file(
        {"model.norm.weight": np.ones(64, np.float32)}, folder / "model-00003-of-00003.safetensors"
    )


def head_elsewhere(folder: Path) -> None:
    found = tensors(folder)
    (folder / "model.safetensors").unlink()
    found["lm_head.weight"] = found["model.embed_tokens.weight"].copy()
    write_weights(folder, found, shards=2)


def renamed(folder: Path, name: Callable[[str], str]) -> None:
    write_weights(folder, {name(key): value for key, value in tensors(folder).items()})


def more(folder: Path, **added: np.ndarray) -> None:
    write_weights(
        folder, {**tensors(folder), **{k.replace("__", "."): v for k, v in added.items()}}
    )


def configured(folder: Path, **changes: Any) -> None:
    change_json(folder / "config.json", **changes)


BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
# What is done to a checkpoint, and the note that the export says; None for none.
HARMLESS: dict[str, tuple[Callable[[Path], object], str | None]] = {
    "stale index": (lambda f: stale_index(f, keep=False), f"left out: {INDEX}"),
    "stale index and its shards": (lambda f: stale_index(f, keep=True), "model-00001-of-00002"),
    "stray shard": (stray_shard, "left out: model-00003-of-00003.safetensors"),
    "tied head in another shard": (head_elsewhere, None),
    "base model alone": (
        lambda f: renamed(f, lambda name: name.removeprefix("model.")),
        "saved without the prefix",
    ),
    "buffer of the model": (
        lambda f: more(f, model__rotary_emb__inv_freq=np.ones(8, np.float32)), None,
    ),
    "leftover quantisation": (lambda f: configured(f, quantization_config=BNB), "is a leftover"),
    "saved kernels": (lambda f: configured(f, _attn_implementation="flash_attention_2"), None),
    "null flags": (lambda f: configured(f, attention_bias=None, mlp_bias=None), None),
}  # fmt: skip


@pytest.mark.parametrize("quirk", HARMLESS)
def test_the_weights_are_those_that_transformers_loads(
    checkpoint_folder: Path, quirk: str, caplog: pytest.LogCaptureFixture
) -> None:
    change, note = HARMLESS[quirk]
    change(checkpoint_folder)
    same_as_transformers(checkpoint_folder)
    assert note in caplog.text if note else not caplog.records


def wrapped(prefix: str) -> Callable[[Path], None]:
    return lambda folder: renamed(folder, lambda name: prefix + name)


def adapter(folder: Path) -> None:
    """As trainers write it beside the base's config.json and their own pickled arguments."""
    facts = {"peft_type": "LORA", "base_model_name_or_path": "some-org/some-base"}
    (folder / "adapter_config.json").write_text(json.dumps(facts))
    (folder / "model.safetensors").unlink()
    (folder / "training_args.bin").write_bytes(b"PK")


def adapter_alone(folder: Path) -> None:
    adapter(folder)
    (folder / "config.json").unlink()


def quantised(folder: Path) -> None:
    configured(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    more(folder, model__layers__0__mlp__up_proj__qweight=np.ones((2, 2), np.int32))


def pointer(folder: Path) -> None:
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 269060552\n"
    (folder / "model.safetensors").write_text(text)


def trainer(folder: Path) -> None:
    """The trainer's own folder: checkpoints below, and nothing else."""
    for step in (500, 1000):
        make_checkpoint(folder / f"checkpoint-{step}")
    for path in [*folder.glob("*.json"), *folder.glob("*.safetensors")]:
        path.unlink()


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "torch.compile": (wrapped("_orig_mod."), "begin with '_orig_mod.'"),
    "adapter": (adapter, "an adapter of some-org/some-base"),
    "adapter alone": (adapter_alone, "an adapter of some-org/some-base"),
    "quantised": (quantised, r"quantised \(quantization_config: gptq\)"),
    "Git LFS": (pointer, "git lfs pull"),
    "absent head": (lambda f: configured(f, tie_word_embeddings=False), "set tie_word_embeddings"),
    "trainer": (trainer, "the newest is .*checkpoint-1000"),
    "no epsilon": (lambda f: configured(f, rms_norm_eps=None), "rms_norm_eps must be a number"),
}


@pytest.mark.parametrize("quirk", REFUSED)
def test_what_cannot_be_read_says_what_it_is(checkpoint_folder: Path, quirk: str) -> None:
    change, message = REFUSED[quirk]
    change(checkpoint_folder)
    with pytest.raises(InputError, match=message):
        open_checkpoint(checkpoint_folder)


def test_artifacts_of_other_weights_are_not_compared_with_these(
    checkpoint_folder: Path, tmp_path: Path
) -> None:
    """Whose shards PyTorch does not load since a single file came beside them."""
    found = tensors(checkpoint_folder)
    (checkpoint_folder / "model.safetensors").unlink()
    write_weights(checkpoint_folder, found, shards=2)
    artifact = export_tiny(checkpoint_folder, "gguf", "f32", tmp_path)
    assert recorded_inputs(checkpoint_folder, [artifact])
    write_weights(checkpoint_folder, {name: value + 1 for name, value in found.items()})
    with pytest.raises(InputError, match=r"transformers loads model\.safetensors there"):
        recorded_inputs(checkpoint_folder, [artifact])
