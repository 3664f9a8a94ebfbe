"""The reference: exact hidden states, other weights in the same graph, an honest tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file

from edgeproof.errors import InputError
from runtimes.peaks import Place, stream_peak
from runtimes.pytorch import open_reference
from tests.tiny import FAMILIES, VOCAB, change_json, make_checkpoint
from tests.tolerance import REORDERED_FLOAT32, relative_error

pytestmark = pytest.mark.numbers

IDS = np.random.default_rng(0).integers(0, VOCAB, 50).tolist()


@pytest.fixture(
    scope="module", params=["tied", "untied", "biases", "llama3 rope", "qwen2", "qwen3"]
)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def checkpoint(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("torch") / "checkpoint", **FAMILIES[family])


def test_logits_are_exactly_those_of_transformers(checkpoint: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.inference_mode():
        expected = model(torch.tensor([IDS])).logits[0].numpy()
    assert np.array_equal(open_reference(checkpoint, 2).logits(IDS), expected)


def test_logits_are_hidden_states_times_head(checkpoint: Path) -> None:
    reference = open_reference(checkpoint, 2)
    hidden, head = reference.hidden(IDS), reference.head
    assert (hidden.shape, head.shape) == ((len(IDS), 64), (VOCAB, 64))
    assert hidden.dtype == head.dtype == np.float32
    assert relative_error(hidden @ head.T, reference.logits(IDS)) < REORDERED_FLOAT32


def test_loaded_weights_run_as_a_checkpoint_with_them_would(
    checkpoint: Path, family: str, tmp_path: Path
) -> None:
    other = make_checkpoint(tmp_path / "other", seed=7, **FAMILIES[family])
    reference = open_reference(checkpoint, 2)
    before = reference.logits(IDS)
    peaks = reference.peaks
    with reference.running(load_file(other / "model.safetensors")):
        assert np.array_equal(reference.logits(IDS), open_reference(other, 2).logits(IDS))
        assert reference.peaks != peaks
    assert reference.peaks == peaks
    assert np.array_equal(reference.logits(IDS), before)


@pytest.mark.parametrize("damage", ["missing", "unknown", "misshapen"])
def test_weights_that_do_not_fit_are_refused_whole(checkpoint: Path, damage: str) -> None:
    reference = open_reference(checkpoint, 2)
    before = reference.logits(IDS)
    weights = {
        name: value + 1 for name, value in load_file(checkpoint / "model.safetensors").items()
    }
    norm = weights.pop("model.norm.weight")
    if damage == "unknown":
        weights |= {"model.norm.weight": norm, "model.extra": norm}
    if damage == "misshapen":
        weights["model.norm.weight"] = norm[:-1]
    with (
        pytest.raises(InputError, match=r"model\.(norm|extra)"),
        reference.running(weights),
    ):
        pass
    assert np.array_equal(reference.logits(IDS), before)


def test_the_peak_is_the_largest_value_of_the_residual_stream(checkpoint: Path) -> None:
    reference = open_reference(checkpoint, 2)
    assert reference.peaks == ()
    reference.logits(IDS)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    with torch.inference_mode():
        states = model(torch.tensor([IDS]), output_hidden_states=True).hidden_states[:-1]
    largest = max(float(state.abs().max()) for state in states)
    assert stream_peak(reference.peaks) >= largest * 0.999


def test_the_peaks_are_those_of_transformers_in_their_layers(checkpoint: Path) -> None:
    reference = open_reference(checkpoint, 2)
    reference.logits(IDS[:30])
    reference.logits(IDS[30:])
    model = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    )
    layers = model.model.layers
    products = [0.0] * len(layers)
    scores = [0.0] * len(layers)
    for index, layer in enumerate(layers):

        def product(_: Any, inputs: Any, index: int = index) -> None:
            products[index] = max(products[index], float(inputs[0].abs().max()))

        layer.mlp.down_proj.register_forward_pre_hook(product)
    with torch.inference_mode():
        for ids in (IDS[:30], IDS[30:]):
            model(torch.tensor([ids]))
            states = reference.states(ids)
            for index, layer in enumerate(layers):
                attention = layer.self_attn
                q, k = (
                    states[f"model.layers.{index}.self_attn.{part}_rope"].reshape(
                        len(ids), -1, attention.head_dim
                    )
                    for part in ("q", "k")
                )
                k = k.repeat(q.shape[1] // k.shape[1], 1)
                found = np.abs(np.einsum("qhd,khd->hqk", q, k)).max() * attention.scaling
                scores[index] = max(scores[index], float(found))
    peaks = {peak.place: peak for peak in reference.peaks}
    assert peaks[Place.PRODUCT].layer == int(np.argmax(products))
    assert peaks[Place.PRODUCT].value == pytest.approx(max(products), rel=REORDERED_FLOAT32)
    assert max(scores) * (1 - REORDERED_FLOAT32) <= peaks[Place.SCORES].value < 10 * max(scores)
    assert (Place.HEADS in peaks) == hasattr(layers[0].self_attn, "q_norm")


def test_padding_of_a_batch_of_replies_is_not_part_of_the_peak(checkpoint: Path) -> None:
    reference = open_reference(checkpoint, threads=1)
    reference.start_many([[3, 4, 5, 6, 7, 8], [9]], room=1)
    reference.step_many([1, 2])
    assert reference.peaks == ()


def test_digits_stay_split_whatever_class_the_tokenizer_config_names(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    expected = open_reference(folder, 1).tokenize("in 1999,  42")
    change_json(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    assert open_reference(folder, 1).tokenize("in 1999,  42") == expected


def test_a_tokenizer_that_transformers_changes_is_refused(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not this file's `transformers`: importing its models may put another module in its place.
    target = "runtimes.pytorch.loading.transformers.PreTrainedTokenizerFast"
    monkeypatch.setattr(target, transformers.GPT2Tokenizer)
    with pytest.raises(InputError, match="rebuilds this tokenizer differently"):
        open_reference(checkpoint, 1)


def test_chat_is_rendered_by_the_template_of_the_checkpoint(checkpoint: Path) -> None:
    reference = open_reference(checkpoint, 1)
    messages = [{"role": "user", "content": "Hi"}]
    asked = reference.render_chat(messages)
    assert asked.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert reference.has_chat_template
    told = reference.render_chat(messages, add_generation_prompt=False)
    assert asked == told + "<|im_start|>assistant\n"
    assert reference.stop_tokens == {2}


def test_a_checkpoint_without_a_template_says_so(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    change_json(folder / "tokenizer_config.json", chat_template=None)
    reference = open_reference(folder, 1)
    assert not reference.has_chat_template
    with pytest.raises(InputError, match="no chat template"):
        reference.render_chat([{"role": "user", "content": "Hi"}])


def test_opening_prints_nothing(checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    open_reference(checkpoint, 1).logits([1, 2])
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="transformers cannot load it"):
        open_reference(folder, 1)


def test_code_in_the_checkpoint_is_never_run(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    marker = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Model: ...\n")
    change_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model"})
    open_reference(folder, 1)
    assert not marker.exists()


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    shutil.copy(__file__, tmp_path / "config.json")
    with pytest.raises(InputError, match="transformers cannot load it"):
        open_reference(tmp_path, 1)
