"""An adapter that cannot be merged says so in one line, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from edgeproof.cli import main
from edgeproof.errors import InputError
from export.sources import resolve
from export.sources.adapters import AdapterRequest
from export.sources.adapters.merged import resolve_merged
from export.sources.bundled import REPO
from export.sources.source import Source
from tests import tiny
from tests.fuzzing import VALUES
from tests.lora import PREFIX, make_lora

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
Q = f"{PREFIX}model.layers.1.self_attn.q_proj"
TABLE = f"{PREFIX}model.embed_tokens"


def configured(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: tiny.change_json(folder / CONFIG, **changes)


def put(**tensors: np.ndarray | None) -> Callable[[Path], None]:
    """Other tensors of a query projection, by the end of the name; None takes one away."""

    def change(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        for end, values in tensors.items():
            name = f"{Q}.{end.replace('__', '.')}"
            found.pop(name, None)
            if values is not None:
                found[name] = values
        save_file(found, folder / WEIGHTS)

    return change


def renamed(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        save_file({name.replace(old, new): t for name, t in found.items()}, folder / WEIGHTS)

    return change


def with_table(rows: int, columns: int = 64) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        table = np.ones((rows, columns), np.float32)
        save_file({**load_file(folder / WEIGHTS), f"{TABLE}.weight": table}, folder / WEIGHTS)

    return change


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def cut(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 7)


def more_tokens(folder: Path) -> None:
    """A tokenizer with more tokens than the base has rows."""
    tiny.write_tokenizer(folder)
    document = json.loads((folder / "tokenizer.json").read_text())
    first = document["added_tokens"][0]
    document["added_tokens"] += [{**first, "id": 336 + i, "content": f"<{i}>"} for i in range(49)]
    (folder / "tokenizer.json").write_text(json.dumps(document))


def both(*changes: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def small(*shape: int) -> np.ndarray:
    return np.full(shape, 0.1, np.float32)


def trainer(folder: Path) -> None:
    """The trainer's own folder: checkpoints below."""
    for step in (500, 1000):
        (folder / f"checkpoint-{step}").mkdir()
        shutil.copy(folder / CONFIG, folder / f"checkpoint-{step}")
    (folder / CONFIG).unlink()


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / CONFIG).unlink(), "adapter_config.json: missing"),
    "trainer": (trainer, "the newest is .*checkpoint-1000"),
    "no JSON": (lambda f: (f / CONFIG).write_text("{"), "not valid JSON"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), f"{WEIGHTS}: missing"),
    "pickled": (pickled, "adapter_model.bin: pickled weights are never loaded"),
    "truncated": (cut, "truncated"),
    "another kind": (configured(peft_type="IA3"), "peft_type is 'IA3'"),
    "no kind": (configured(peft_type=None), "peft_type is None"),
    "PiSSA": (configured(init_lora_weights="pissa_niter_4"), "changes the base too"),
    "aLoRA": (configured(alora_invocation_tokens=[1]), "alora_invocation_tokens"),
    "more layers": (configured(layer_replication=[[0, 2]]), "repeats layers"),
    "bias": (configured(bias="some"), "bias must be one of"),
    "rank of a text": (configured(r="4"), "r must be a whole number"),
    "alpha": (configured(lora_alpha=float("inf")), "lora_alpha must be|not valid JSON"),
    "no pattern": (configured(target_modules="(q_proj"), "is no pattern"),
    "another rank": (configured(r=8), "has rank 4, adapter_config.json says 8"),
    "a rank by pattern": (configured(rank_pattern={"q_proj": 2}), "says 2"),
    "another model's sizes": (put(lora_A__weight=small(4, 48)), "q_proj.lora_A.weight has shape"),
    "another model's rows": (put(lora_B__weight=small(48, 4)), "q_proj.lora_B.weight has shape"),
    "other modules": (renamed("self_attn", "attention"), "which the base does not have"),
    "more layers than the base": (renamed("layers.2.", "layers.9."), r"layers\.9\..* does not"),
    "half": (put(lora_B__weight=None), "lora_B.weight of model.layers.1"),
    "an unknown tensor": (put(lora_C__weight=small(4, 4)), "lora_C|which the base does not have"),
    "NaN": (put(lora_A__weight=np.full((4, 64), np.nan, np.float32)), "NaN or infinite"),
    "overflow": (put(lora_A__weight=np.full((4, 64), 3e38, np.float32)), "beyond float32"),
    "an untargeted module": (configured(target_modules=["v_proj"]), "leave .*q_proj out"),
    "a module that is missing": (
        configured(target_modules=["q_proj", "v_proj", "up_proj"]), "up_proj, of which",
    ),
    "layers": (configured(layers_to_transform=[0, 1]), r"leave model\.layers\.2"),
    "DoRA without": (configured(use_dora=True), "has no lora_magnitude_vector"),
    "DoRA unsaid": (put(lora_magnitude_vector=small(64)), "use_dora is not true"),
    "DoRA's length": (
        both(configured(use_dora=True), put(lora_magnitude_vector=small(63))), "magnitude",
    ),
    "a bias": (put(base_layer__bias=small(64)), "q_proj has none"),
    "a saved module": (configured(modules_to_save=["embed_tokens"]), "of which the adapter has no"),
    "token rows": (configured(trainable_token_indices=[3]), "of which the adapter has no"),
    "a table's columns": (with_table(384, 32), r"embed_tokens.weight has shape \[384, 32\]"),
    "twice": (
        put(modules_to_save__weight=small(64, 64), base_layer__weight=small(64, 64)), "same tensor",
    ),
    "tokens without rows": (more_tokens, "has a token 384, the merged embedding only 384 rows"),
    "rows without indices": (put(token_adapter__trainable_tokens_delta=small(2, 64)), "no rows"),
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_checkpoint(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture
def lora(tmp_path: Path, base: Path) -> Path:
    return make_lora(tmp_path / "lora", base)


def refusal(base: Path, lora: Path, weight: float = 1.0) -> str:
    with pytest.raises(InputError) as caught:
        resolve(str(base), None, [AdapterRequest(str(lora), weight)])
    made = Path(os.environ["EDGEPROOF_CACHE"]) / "checkpoints"
    assert not [path for path in made.glob("*") if path.is_dir()]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("damage", REFUSED)
def test_a_bad_adapter_is_refused_in_one_line(base: Path, lora: Path, damage: str) -> None:
    change, message = REFUSED[damage]
    change(lora)
    found = refusal(base, lora)
    assert re.search(message, found), found


def test_what_replaces_the_bases_has_no_weight(base: Path, lora: Path) -> None:
    with_table(384)(lora)
    assert "0.5 has no meaning" in refusal(base, lora, 0.5)


def test_a_head_that_has_not_grown_with_the_embedding(tmp_path: Path) -> None:
    base = tiny.make_checkpoint(tmp_path / "base", tie_word_embeddings=False)
    lora = make_lora(tmp_path / "lora", base)
    with_table(390)(lora)
    assert "has 390 rows and lm_head.weight 384" in refusal(base, lora)


def test_a_second_adapter_replaces_nothing_of_the_first(tmp_path: Path, base: Path) -> None:
    first = make_lora(tmp_path / "first", base, ("embed_tokens",))
    second = make_lora(tmp_path / "second", base)
    with_table(384)(second)
    wanted = [AdapterRequest(str(first)), AdapterRequest(str(second))]
    with pytest.raises(InputError, match="an adapter before it changes"):
        resolve(str(base), None, wanted)


@pytest.mark.parametrize("named", [None, "some-org/some-base", "/gone/base"])
def test_an_adapter_whose_base_is_not_here_names_what_to_give(
    lora: Path, named: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    configured(base_model_name_or_path=named)(lora)
    given = named if named == "some-org/some-base" else "BASE"
    with pytest.raises(InputError, match=f"--model {given} --adapter {lora}"):
        resolve(str(lora))


def test_an_adapter_of_an_adapter_names_both(tmp_path: Path, lora: Path) -> None:
    other = make_lora(tmp_path / "other", tiny.make_checkpoint(tmp_path / "base"))
    configured(base_model_name_or_path=str(lora))(other)
    with pytest.raises(InputError, match=f"--adapter {lora} --adapter {other}"):
        resolve(str(other))


def test_the_built_in_model_has_channels_of_its_own(base: Path, lora: Path) -> None:
    source = Source(base, "built-in", "Built-in", REPO, "1")
    for made_for in ("HuggingFaceTB/SmolLM2-135M-Instruct", None, "", "bundled-labs/x"):
        configured(base_model_name_or_path=made_for)(lora)
        with pytest.raises(InputError, match="in another order"):
            resolve_merged(source, [AdapterRequest(str(lora))])
    configured(base_model_name_or_path="bundled")(lora)
    assert resolve_merged(source, [AdapterRequest(str(lora))]).path.is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--adapter", "gone"), "no such folder"),
        (
            ("--adapter", "{lora}", "--adapter-weight", "1", "--adapter-weight", "2"),
            "2 times for 1",
        ),
        (("--adapter-weight", "2"), "1 times for 0"),
        (("--adapter", "{lora}", "--adapter-weight", "nan"), "must be finite"),
        (("--adapter", f"{{lora}}/{WEIGHTS}"), "name its folder"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    base: Path, lora: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    given = [text.format(lora=lora) for text in arguments]
    command = ["gguf", "-m", str(base), "-d", "f16", "-o", str(tmp_path / "out"), *given]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2, done.output
    (line,) = done.output.splitlines()
    assert message in line


def damaged(rng: random.Random, lora: Path) -> None:
    """One key of the config, or some bytes of the weights, are something else."""
    config = json.loads((lora / CONFIG).read_text())
    keys = [*config, "rank_pattern", "alpha_pattern", "modules_to_save", "use_dora", "use_rslora",
            "layers_to_transform", "layers_pattern", "trainable_token_indices", "exclude_modules",
            "ensure_weight_tying", "revision", "init_lora_weights"]  # fmt: skip
    if rng.random() < 0.5:
        value = rng.choice([*VALUES, {"q_proj": rng.choice(VALUES)}, ["q_proj", "["]])
        config[rng.choice(keys)] = value
        (lora / CONFIG).write_text(json.dumps(config))
        return
    data = bytearray((lora / WEIGHTS).read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    for _ in range(rng.choice([1, 1, 3])):
        data[rng.randrange(header)] = rng.choice(b'0123456789"{}[]:,aAf.\x00\xff')
    (lora / WEIGHTS).write_bytes(data[: rng.choice([len(data), header, rng.randrange(len(data))])])


def test_whatever_an_adapter_has_in_it_the_outcome_is_a_merge_or_one_line(
    tmp_path: Path, base: Path
) -> None:
    sound = make_lora(tmp_path / "sound", base)
    rng, lora, merges = random.Random(18), tmp_path / "lora", 0
    for _ in range(60):
        shutil.copytree(sound, lora)
        damaged(rng, lora)
        try:
            resolve(str(base), None, [AdapterRequest(str(lora))])
            merges += 1
        except InputError as error:
            assert "\n" not in str(error)
        shutil.rmtree(lora)
    assert 0 < merges < 60
    made = Path(os.environ["EDGEPROOF_CACHE"]) / "checkpoints"
    assert not list(made.glob(".*"))
