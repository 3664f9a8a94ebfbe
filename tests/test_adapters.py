"""A merged checkpoint computes what base and adapter compute beside each other in PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import transformers

from export.checkpoint import Checkpoint, open_checkpoint
from export.checkpoint.merge_record import MERGE_RECORD, read_merge_record
from export.checkpoint.model_card import read_model_card
from export.sources import resolve
from export.sources.adapters import AdapterRequest
from runtimes.registry import open_reference
from tests import tiny
from tests.lora import PREFIX, make_lora, unmerged_logits
from tests.tolerance import REORDERED_FLOAT32, relative_error

pytestmark = pytest.mark.numbers

IDS = [1, 40, 7, 300, 12, 12, 99, 5]
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FUSED = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
TABLE, HEAD = f"{PREFIX}model.embed_tokens", f"{PREFIX}lm_head"
# Changes of `make_lora`, and of the base.
ADAPTERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "all layers, rsLoRA": (
        {"modules": LINEAR, "use_rslora": True},
        {"dtype": "BF16", "shards": 2},
    ),
    "patterns": (
        {
            "modules": LINEAR,
            "rank_pattern": {"layers.1.self_attn.q_proj": 6},
            "alpha_pattern": {"up_proj": 3, "layers.1.self_attn.q_proj": 5},
            "dtype": np.float16,
        },
        {"attention_bias": True},
    ),
    "one layer": ({"layers_to_transform": [1], "layers_pattern": "layers"}, {}),
    "DoRA": ({"modules": LINEAR, "use_dora": True}, {"attention_bias": True}),
    "fused layers": ({"modules": FUSED}, {**tiny.PHI3, "dtype": "BF16", "shards": 2}),
    "DoRA of fused layers": ({"modules": FUSED, "use_dora": True}, tiny.PHI3),
    "embedding of a tied model": ({"modules": ("embed_tokens", "o_proj")}, {}),
    "head of a tied model": ({"modules": ("lm_head",)}, {"dtype": "BF16"}),
    "DoRA of tables": (
        {"modules": ("embed_tokens", "lm_head"), "use_dora": True},
        {"tie_word_embeddings": False},
    ),
}  # fmt: skip


def merged(base: Path, *adapters: Path | AdapterRequest) -> Path:
    wanted = [a if isinstance(a, AdapterRequest) else AdapterRequest(str(a)) for a in adapters]
    return resolve(str(base), None, wanted).path


def logits(folder: Path, ids: list[int]) -> np.ndarray:
    return open_reference(folder, 1).logits(ids)


def tensors(folder: Path) -> dict[str, np.ndarray]:
    checkpoint: Checkpoint = open_checkpoint(folder)
    return {p.name: checkpoint._where[p.name].tensor(p.name) for p in checkpoint.parameters}


@pytest.mark.parametrize("name", ADAPTERS)
def test_merged_is_base_and_adapter_in_pytorch(tmp_path: Path, name: str) -> None:
    settings, changes = ADAPTERS[name]
    base = tiny.make_checkpoint(tmp_path / "base", **changes)
    lora = make_lora(tmp_path / "lora", base, **settings)
    result = merged(base, lora)
    expected = unmerged_logits(base, [(lora, 1.0)], IDS)
    assert relative_error(logits(result, IDS), expected) < REORDERED_FLOAT32
    assert relative_error(logits(base, IDS), expected) > 0.1


def test_targets_may_be_a_pattern(tmp_path: Path) -> None:
    base = tiny.make_checkpoint(tmp_path / "base")
    listed = make_lora(tmp_path / "listed", base)
    pattern = make_lora(tmp_path / "pattern", base, target_modules=r".*\.(q|v)_proj")
    first, second = tensors(merged(base, listed)), tensors(merged(base, pattern))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_what_is_not_changed_keeps_its_bytes_and_the_rest_is_float32(tmp_path: Path) -> None:
    base = tiny.make_checkpoint(tmp_path / "base", dtype="BF16")
    before, after = tensors(base), tensors(merged(base, make_lora(tmp_path / "lora", base)))
    for name, values in after.items():
        changed = "q_proj" in name or "v_proj" in name
        assert values.dtype == (np.float32 if changed else ml_dtypes.bfloat16)
        assert changed or np.array_equal(values, before[name])


def test_adapters_are_merged_one_after_the_other_with_their_weights(tmp_path: Path) -> None:
    base = tiny.make_checkpoint(tmp_path / "base")
    first = make_lora(tmp_path / "first", base, LINEAR)
    second = make_lora(tmp_path / "second", base, ("q_proj", "down_proj"), seed=8)
    wanted = [AdapterRequest(str(first), 0.5), AdapterRequest(str(second), -0.25)]
    expected = unmerged_logits(base, [(first, 0.5), (second, -0.25)], IDS)
    assert relative_error(logits(merged(base, *wanted), IDS), expected) < REORDERED_FLOAT32


def test_a_weight_of_minus_one_takes_an_adapter_back(tmp_path: Path) -> None:
    base = tiny.make_checkpoint(tmp_path / "base")
    lora = str(make_lora(tmp_path / "lora", base, LINEAR))
    back = merged(base, AdapterRequest(lora), AdapterRequest(lora, -1.0))
    for name, values in tensors(base).items():
        np.testing.assert_allclose(tensors(back)[name], values, atol=1e-6)


def grown(base: Path, more: int = 3) -> np.ndarray:
    """The embedding, and rows for new tokens."""
    table = tensors(base)["model.embed_tokens.weight"]
    rows = np.random.default_rng(1).standard_normal((more, table.shape[1]))
    return np.concatenate([table, rows.astype(table.dtype)])


def with_tokens(lora: Path, *texts: str) -> Path:
    """The tokenizer that an adapter with tokens of its own is saved with."""
    tiny.write_tokenizer(lora)
    tokenizer = transformers.AutoTokenizer.from_pretrained(lora)
    tokenizer.add_tokens([*texts])
    tokenizer.save_pretrained(lora)
    return lora


NEW = ("<|tool|>", "<|thought|>", "<|end|>")


@pytest.mark.parametrize("tied", [True, False])
def test_a_grown_vocabulary_comes_with_its_rows_and_its_tokenizer(
    tmp_path: Path, tied: bool
) -> None:
    base = tiny.make_checkpoint(tmp_path / "base", tie_word_embeddings=tied)
    table = grown(base)
    head = table if tied else table[::-1].copy()
    whole = {f"{TABLE}.weight": table, f"{HEAD}.weight": head}
    saved = ["embed_tokens", "lm_head"]
    lora = make_lora(tmp_path / "lora", base, tensors=whole, modules_to_save=saved)
    result = merged(base, with_tokens(lora, *NEW))
    checkpoint = open_checkpoint(result)
    assert (checkpoint.config.vocab, checkpoint.config.tied) == (tiny.VOCAB + 3, tied)
    assert set(NEW) <= checkpoint.added.keys()
    stored = tensors(result)
    assert np.array_equal(stored["model.embed_tokens.weight"], table)
    assert tied or np.array_equal(stored["lm_head.weight"], head)
    assert logits(result, [1, tiny.VOCAB + 1]).shape == (2, tiny.VOCAB + 3)


@pytest.mark.parametrize(
    ("name", "saved", "settings", "tied"),
    [
        # PEFT trains a copy of the embedding; the head keeps sharing the base's.
        ("embed_tokens", ["embed_tokens"], {}, False),
        ("embed_tokens", ["embed_tokens"], {"ensure_weight_tying": True}, True),
        # Saved because it was resized: it is the shared weight itself.
        ("embed_tokens", [], {}, True),
        ("lm_head", ["lm_head"], {}, False),
    ],
)
def test_a_tied_head_follows_as_in_peft(
    tmp_path: Path, name: str, saved: list[str], settings: dict[str, Any], tied: bool
) -> None:
    base = tiny.make_checkpoint(tmp_path / "base")
    table = grown(base, 0)[::-1].copy()
    path = TABLE if name == "embed_tokens" else HEAD
    lora = make_lora(
        tmp_path / "lora",
        base,
        tensors={f"{path}.weight": table},
        modules_to_save=saved,
        **settings,
    )
    before, after = tensors(base), tensors(merged(base, lora))
    embedding = after["model.embed_tokens.weight"]
    head = after.get("lm_head.weight", embedding)
    assert ("lm_head.weight" not in after) is tied
    old = before["model.embed_tokens.weight"]
    assert np.array_equal(embedding, old if name == "lm_head" else table)
    assert np.array_equal(head, table if tied or name == "lm_head" else old)


def test_single_rows_of_a_tied_table(tmp_path: Path) -> None:
    base = tiny.make_checkpoint(tmp_path / "base", dtype="BF16")
    rows = np.ones((2, 64), ml_dtypes.bfloat16)
    name = f"{TABLE}.token_adapter.trainable_tokens_delta"
    lora = make_lora(
        tmp_path / "lora", base, tensors={name: rows}, trainable_token_indices=[300, 5]
    )
    before, after = tensors(base), tensors(merged(base, lora))
    table = after["model.embed_tokens.weight"]
    assert "lm_head.weight" not in after
    assert table.dtype == ml_dtypes.bfloat16
    assert np.array_equal(table[[300, 5]], rows)
    others = np.delete(np.arange(tiny.VOCAB), [300, 5])
    assert np.array_equal(table[others], before["model.embed_tokens.weight"][others])


def test_biases_of_the_adapter(tmp_path: Path) -> None:
    base = tiny.make_checkpoint(tmp_path / "base", attention_bias=True)
    layer = "model.layers.1.self_attn"
    own = {
        f"{PREFIX}{layer}.q_proj.base_layer.bias": np.full(64, 2, np.float32),
        f"{PREFIX}{layer}.k_proj.bias": np.full(32, 3, np.float32),
        f"{PREFIX}{layer}.v_proj.lora_B.bias": np.full(32, 4, np.float32),
    }
    lora = make_lora(tmp_path / "lora", base, tensors=own, bias="all", lora_bias=True)
    before, after = tensors(base), tensors(merged(base, lora))
    assert np.array_equal(after[f"{layer}.q_proj.bias"], np.full(64, 2))
    assert np.array_equal(after[f"{layer}.k_proj.bias"], np.full(32, 3))
    added = after[f"{layer}.v_proj.bias"] - before[f"{layer}.v_proj.bias"]
    np.testing.assert_allclose(added, 12.0, rtol=1e-6)  # alpha / r is 3


def test_merging_again_is_reused_and_another_weight_is_another_checkpoint(tmp_path: Path) -> None:
    base = tiny.make_checkpoint(tmp_path / "base")
    lora = make_lora(tmp_path / "lora", base)
    first, again = merged(base, lora), merged(base, lora)
    assert first == again
    half = merged(base, AdapterRequest(str(lora), 0.5))
    other = merged(base, make_lora(tmp_path / "lora", base, seed=9))
    assert len({first, half, other}) == 3


def test_peft_itself_merges_the_same(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = tiny.make_checkpoint(tmp_path / "base")
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    config = peft.LoraConfig(r=4, target_modules=[*LINEAR], use_dora=True, init_lora_weights=False)
    wrapped = peft.get_peft_model(model, config)
    wrapped.save_pretrained(tmp_path / "lora")
    expected = wrapped.merge_and_unload().state_dict()
    for name, values in tensors(merged(base, tmp_path / "lora")).items():
        np.testing.assert_allclose(values, expected[name].numpy(), rtol=1e-5, atol=1e-6)


def test_an_adapter_given_as_the_model_finds_its_base(tmp_path: Path) -> None:
    base = tiny.make_checkpoint(tmp_path / "base")
    lora = make_lora(tmp_path / "lora", base)
    assert resolve(str(lora)) == resolve(str(base), None, [AdapterRequest(str(lora))])
    assert resolve(str(lora)).label == "base+lora"


def test_the_record_and_the_card_name_base_and_adapter(tmp_path: Path) -> None:
    base = tiny.make_checkpoint(tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\nname: Base\n---\n")
    lora = make_lora(tmp_path / "lora", base)
    (lora / "README.md").write_text("---\nlicense: llama3.2\ndatasets: [a/b]\n---\n")
    result = merged(base, AdapterRequest(str(lora), 0.5))
    facts = {"license": ["apache-2.0", "llama3.2"], "language": "en", "datasets": "a/b"}
    assert read_model_card(result) == facts
    record = read_merge_record(result)
    assert record is not None
    (adapter,) = record.adapters
    assert (adapter.weight, adapter.license) == (0.5, "llama3.2")
    assert {file.path for file in adapter.files} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert MERGE_RECORD in {path.name for path in open_checkpoint(result).input_files}
    assert str(tmp_path) not in (result / MERGE_RECORD).read_text()


def test_the_config_is_the_bases(tmp_path: Path) -> None:
    base = tiny.make_checkpoint(tmp_path / "base")
    result = merged(base, make_lora(tmp_path / "lora", base))
    raw = json.loads((result / "config.json").read_text())
    assert raw == json.loads((base / "config.json").read_text())
