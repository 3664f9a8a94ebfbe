"""The reference with one layer in memory at a time: the same bits as with the whole model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from edgeproof.errors import InputError
from runtimes import memory
from runtimes.computing import AUTO, AUTOMATIC, LAYERS, WHOLE, Computing
from runtimes.parity.__main__ import main as parity_main
from runtimes.parity.reference import load_reference
from runtimes.parity.suite import Prompt, Suite
from runtimes.pytorch import TorchRuntime, open_reference
from tests.caches import new_cache
from tests.exported import export_tiny
from tests.parity_runs import invoke
from tests.tiny import FAMILIES, GEMMA3, GRANITE, PHI3, SMOLLM3, VOCAB, long_texts, make_checkpoint

pytestmark = pytest.mark.numbers

MODELS: dict[str, dict[str, Any]] = {
    **{name: FAMILIES[name] for name in ("wide heads", "biases", "qwen3 untied")},
    "smollm3": SMOLLM3, "granite": GRANITE, "phi3": PHI3, "gemma3": GEMMA3,
}  # fmt: skip
RNG = np.random.default_rng(0)
TEXTS = [RNG.integers(0, VOCAB, count).tolist() for count in (50, 3, 40, 16)]
CHUNK = 16


def opened(checkpoint: Path, weights: str) -> TorchRuntime:
    """A reference that takes long texts in several pieces."""
    runtime = open_reference(checkpoint, 1, Computing(weights))
    runtime.chunk = CHUNK
    return runtime


def untimed(found: Any) -> Any:
    """A report without what a clock gave."""
    if isinstance(found, list):
        return [*map(untimed, found)]
    if not isinstance(found, dict):
        return found
    return {key: untimed(value) for key, value in found.items() if "second" not in key}


@pytest.fixture(scope="module", params=MODELS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("layers") / "m", **MODELS[request.param])


def test_everything_is_equal_bit_for_bit(checkpoint: Path) -> None:
    whole, layers = (opened(checkpoint, weights) for weights in (WHOLE, LAYERS))
    assert (whole.weights_held, layers.weights_held) == ("whole", "layers")
    expected = [whole.hidden(ids) for ids in TEXTS]
    for found in (layers.hidden_of(TEXTS), [layers.hidden(ids) for ids in TEXTS]):
        for rows, want in zip(found, expected, strict=True):
            np.testing.assert_array_equal(rows, want)
    assert layers.peaks == whole.peaks
    np.testing.assert_array_equal(layers.head, whole.head)
    assert [*layers.weights] == [*whole.weights]
    assert layers.has_weights(whole.weights)
    assert whole.has_weights(layers.weights)
    for do in (
        lambda runtime: runtime.logits(TEXTS[0]),
        lambda runtime: np.concatenate([*runtime.logit_blocks(TEXTS[0], 20)]),
        lambda runtime: np.concatenate([*runtime.logits_of(TEXTS)(TEXTS[0])]),
        lambda runtime: np.stack([runtime.start(TEXTS[0]), runtime.step(5), runtime.step(6)]),
        lambda runtime: np.stack([runtime.start_many(TEXTS[1:], 2), runtime.step_many([1, 2, 3])]),
        lambda runtime: np.array(runtime.sample([1], 3, 8, seed=0)),
    ):
        np.testing.assert_array_equal(do(layers), do(whole))
    states, wanted = (runtime.states(TEXTS[3]) for runtime in (layers, whole))
    assert states.keys() == wanted.keys()
    for name, rows in wanted.items():
        np.testing.assert_array_equal(states[name], rows, name)


@pytest.mark.parametrize("model", [{}, PHI3])
def test_other_weights_run_as_in_a_whole_model(model: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "m", **model)
    whole, layers = (opened(checkpoint, weights) for weights in (WHOLE, LAYERS))
    before = layers.logits(TEXTS[0])
    kept, own = layers.lasting_head, layers.head.copy()
    others = {name: values * np.float32(1.5) for name, values in whole.weights.items()}
    apart = {**others, "lm_head.weight": others["model.embed_tokens.weight"][::-1]}
    for tensors in (others, apart):
        with whole.running(tensors), layers.running(tensors):
            for do in (
                lambda runtime: np.concatenate(runtime.hidden_of(TEXTS)),
                lambda runtime: runtime.logits(TEXTS[0]),
                lambda runtime: runtime.head,
            ):
                np.testing.assert_array_equal(do(layers), do(whole))
            assert layers.has_weights(tensors)
    np.testing.assert_array_equal(layers.logits(TEXTS[0]), before)
    np.testing.assert_array_equal(kept, own)


def test_one_layer_is_in_memory_at_a_time(tmp_path: Path) -> None:
    runtime = opened(make_checkpoint(tmp_path / "m", tie_word_embeddings=False), LAYERS)
    model, seen = runtime._model, []

    def there(module: Any) -> bool:
        return all(p.device.type != "meta" for p in module.parameters())

    for index, layer in enumerate(model.model.layers):
        layer.mlp.register_forward_hook(
            lambda *_, index=index: seen.append((index, [*map(there, model.model.layers)]))
        )
    runtime.hidden_of(TEXTS)
    pieces = sum(-(-len(ids) // CHUNK) for ids in TEXTS)
    layers = len(model.model.layers)
    assert seen == [
        (i, [i == j for j in range(layers)]) for i in range(layers) for _ in range(pieces)
    ]
    runtime.rest()
    assert not any(there(module) for module in (*model.model.layers, model.model.norm))
    assert not there(model.lm_head)


def test_each_layer_is_read_once_for_all_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runtimes.pytorch import layered

    runtime, read = opened(make_checkpoint(tmp_path / "m"), LAYERS), []
    monkeypatch.setattr(
        layered, "tensor", lambda entry, of=layered.tensor: (read.append(entry.begin), of(entry))[1]
    )
    runtime.hidden_of(TEXTS)
    # The last norm is small, and its file's pages are not kept.
    assert len(set(read)) == len(load_file(tmp_path / "m" / "model.safetensors"))
    assert len(read) - len(set(read)) < 2 * sum(-(-len(ids) // CHUNK) for ids in TEXTS)


def test_the_capture_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_checkpoint(tmp_path / "m", dtype="BF16", tie_word_embeddings=False)
    asked = [({"role": "user", "content": "x" * count},) for count in range(1, 5)]
    prompts = [Prompt(f"{i}", "chat", messages=turn) for i, turn in enumerate(asked)]
    prompts.append(Prompt("text", "prose", text="one two three " * 12))
    suite, found = Suite("s", tuple(prompts), 12), []
    for weights in (WHOLE, LAYERS):
        monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path / weights))
        found.append(load_reference(opened(folder, weights), suite, (), lambda: None))
    whole, layers = found
    assert layers.documents == whole.documents
    assert any(document.reply for document in whole.documents)
    assert layers.peaks == whole.peaks
    for rows, want in zip((*layers.hidden, layers.head), (*whole.hidden, whole.head), strict=True):
        np.testing.assert_array_equal(rows, want)


def test_what_does_not_fit_is_run_by_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_checkpoint(tmp_path / "m")
    for free, held in ((None, "whole"), (10**12, "whole"), (10**6, "layers")):
        monkeypatch.setattr("runtimes.pytorch.opening.available_memory", lambda free=free: free)
        assert open_reference(folder, 1, AUTOMATIC).weights_held == held
        assert open_reference(folder, 1, Computing(WHOLE)).weights_held == "whole"
        assert open_reference(folder, 1, Computing(LAYERS)).weights_held == "layers"


@pytest.mark.parametrize("change", ["missing", "misshapen", "second head"])
def test_files_that_are_not_the_model_as_it_is_are_not_run_by_layer(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_checkpoint(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    name = "lm_head.weight" if change == "second head" else "model.layers.1.mlp.up_proj.weight"
    values = tensors.pop(name, tensors["model.embed_tokens.weight"])
    if change != "missing":
        tensors[name] = values[1:] if change == "misshapen" else values
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=rf"{name} is not in the files as the model has it"):
        open_reference(folder, 1, Computing(LAYERS))
    monkeypatch.setattr("runtimes.pytorch.opening.available_memory", lambda: 0)
    if change == "second head":
        assert open_reference(folder, 1, Computing(AUTO)).weights_held == "whole"


def test_a_misshapen_tensor_is_named_when_its_layer_runs(tmp_path: Path) -> None:
    runtime = opened(make_checkpoint(tmp_path / "m"), LAYERS)
    name = "model.layers.1.mlp.up_proj.weight"
    tensors = dict(runtime.weights)
    tensors[name] = tensors[name][1:]
    with pytest.raises(InputError, match=f"{name}: shape"), runtime.running(tensors):
        runtime.hidden(TEXTS[0])
    assert runtime.logits(TEXTS[0]).shape == (len(TEXTS[0]), VOCAB)


def test_the_run_says_which_way_and_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtimes.parity.tokenizer.COUNT", 100)
    monkeypatch.setattr("runtimes.parity.statistics.RESAMPLES", 200)
    checkpoint = make_checkpoint(tmp_path / "tiny")
    artifact = export_tiny(checkpoint, "gguf", "q4_0", tmp_path)
    asked = [{"role": "user", "content": "How many?"}]
    lines = [{"text": text[:120]} for text in long_texts(4)] + [{"messages": asked}]
    (tmp_path / "text.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = {}
    for weights in (WHOLE, LAYERS):
        folder = tmp_path / weights
        folder.mkdir()
        monkeypatch.setenv("EDGEPROOF_CACHE", new_cache(folder))
        invoke(
            parity_main, artifact.path, "--checkpoint", checkpoint, "--text",
            tmp_path / "text.jsonl", "--no-footprint", "--no-watch", "--localise", "--positions",
            1000, "--threads", 1, "--json", folder / "parity.json", "--reference-weights", weights,
        )  # fmt: skip
        found[weights] = json.loads((folder / "parity.json").read_text("utf-8"))
        page = (folder / "parity.html").read_text("utf-8")
        assert ("one layer in memory at a time" in page) == (weights == LAYERS)
    said = {way: raw["reference"].pop("weights") for way, raw in found.items()}
    assert said == {WHOLE: WHOLE, LAYERS: LAYERS}
    assert untimed(found[LAYERS]) == untimed(found[WHOLE])
    assert found[LAYERS]["artifacts"][0]["localisation"]["findings"]


def test_the_memory_that_is_left_is_the_least_on_the_way_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    (tmp_path / "cgroup").write_text("0::/a/b\n")
    for name, (limit, used, files) in {
        "a": ("4000000", 3000000, 500000),
        "a/b": ("max", 1, 0),
    }.items():
        group = tmp_path / "groups" / name
        group.mkdir(parents=True)
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{used}\n")
        (group / "memory.stat").write_text(f"anon 7\ninactive_file {files}\n")
    monkeypatch.setattr(memory, "MEMORY_INFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "OWN_GROUP", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    assert memory.available_memory() == 1_500_000
    (tmp_path / "cgroup").unlink()
    assert memory.available_memory() == 5000 * 1024
    (tmp_path / "meminfo").write_text("nothing")
    assert memory.available_memory() is None


def test_rows_of_a_table_that_are_not_asked_for_take_no_memory(tmp_path: Path) -> None:
    runtime = opened(make_checkpoint(tmp_path / "m", tie_word_embeddings=False), LAYERS)
    runtime.hidden([3, 9, 3])
    held = runtime._held
    assert torch.equal(held._known.nonzero().flatten(), torch.tensor([3, 9]))  # type: ignore[attr-defined]
