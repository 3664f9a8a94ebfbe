"""Files with more tokens than the original: padded rows and added tokens, in every format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeproof.artifact import MANIFEST, Vocabulary
from runtimes.audit.__main__ import main as audit_main
from runtimes.audit.description import against, describe
from runtimes.audit.subjects import subjects
from runtimes.common_tokens import CommonRows, on_common_tokens
from runtimes.parity import statistics, tokenizer
from runtimes.parity.localise.contents import compare_contents
from runtimes.protocol import (
    BatchRuntime,
    ManyRuntime,
    OwnTokenizerRuntime,
    TextRuntime,
    WiderRuntime,
    WrappingRuntime,
)
from runtimes.registry import open_runtime
from tests import tiny
from tests.caches import new_cache
from tests.exported import export_tiny
from tests.parity_runs import invoke

COMMON, MORE = 336, 64  # the tiny tokenizer's tokens; so many more
WIDE = COMMON + MORE
EXACT = (("gguf", "f32"), ("onnx", "fp32"))
ROUNDED = (("gguf", "q8_0"), ("onnx", "q4"), ("mlc", "q0f32"))
EMBEDDING = "model.embed_tokens.weight"
NOTE = f"its vocabulary has {WIDE} tokens, {MORE} more than the original's"


def wider(model: Path, folder: Path, further: float) -> Path:
    """The checkpoint with a token added and rows beyond: the first ones, `further` times as big."""
    made = with_a_token(tiny.make_checkpoint(folder, vocab_size=WIDE))
    weights = load_file(model / "model.safetensors")
    rows = weights[EMBEDDING]
    weights[EMBEDDING] = np.concatenate([rows, further * rows[:MORE]])
    tiny.write_weights(made, weights)
    return made


def with_a_token(checkpoint: Path) -> Path:
    """One that somebody added after the others."""
    document = json.loads((checkpoint / "tokenizer.json").read_text("utf-8"))
    assert len(document["model"]["vocab"]) == COMMON
    added = {**document["added_tokens"][0], "id": COMMON, "content": "[NEW]"}
    document["added_tokens"].append(added)
    (checkpoint / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    return checkpoint


def foreign(checkpoint: Path, form: str, variant: str, root: Path) -> Path:
    artifact = export_tiny(checkpoint, form, variant, root)
    (artifact.path / MANIFEST).unlink()
    return artifact.path


@dataclass(frozen=True)
class Audited:
    """What was said of files, by their names."""

    output: str
    parity: dict[str, dict[str, Any]]

    def of(self, name: str) -> dict[str, Any]:
        (found,) = (item for key, item in self.parity.items() if key.endswith(name))
        return found


def audit(files: list[Path], model: Path, folder: Path) -> Audited:
    """Audit files with a short text; what the command needs beside them lies in the folder."""
    text = folder / "text.jsonl"
    text.write_text("".join(json.dumps({"text": t[:80]}) + "\n" for t in tiny.long_texts(1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "COUNT", 50)
        patch.setattr(statistics, "RESAMPLES", 50)
        patch.setenv("EDGEPROOF_CACHE", new_cache(folder))
        target = folder / "audit.json"
        done = invoke(
            audit_main, *files, "--against", model, "--text", text, "--no-footprint", "--no-html",
            "--json", target,
        )  # fmt: skip
    assert target.exists(), done.output
    said = json.loads(target.read_text("utf-8"))["parity"]["artifacts"]
    return Audited(done.output, {f"{item['format']} {item['variant']}": item for item in said})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_checkpoint(tmp_path_factory.mktemp("model") / "m", vocab_size=COMMON)


@pytest.fixture(scope="module")
def audited(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Audited:
    folder = tmp_path_factory.mktemp("wider")
    quiet, loud = (wider(model, folder / name, n) for name, n in (("quiet", 0.0), ("loud", 4.0)))
    made = [foreign(quiet, form, variant, folder / "out") for form, variant in (*EXACT, *ROUNDED)]
    files = [next(path.glob("onnx/*.onnx"), path) for path in made]
    shouting = next(foreign(loud, "gguf", "f32", folder / "loud-out").glob("*.gguf"))
    files.append(shouting.rename(shouting.with_name("loud.gguf")))
    return audit(files, model, folder)


@pytest.mark.parametrize(("form", "variant"), EXACT)
def test_the_common_tokens_are_compared_and_that_is_said(
    audited: Audited, form: str, variant: str
) -> None:
    (found,) = (
        item
        for name, item in audited.parity.items()
        if name.startswith(f"{form} ") and item["precision"] == "fp32" and "loud" not in name
    )
    assert found["verdict"] != "FAIL", found["reasons"]
    assert any(note.startswith(NOTE) for note in found["notes"])
    assert found["measurement"]["exact_weights"]
    assert found["measurement"]["estimates"]["mean_kl"]["value"] < 1e-6


def test_the_weights_of_a_rounded_file_are_compared_too(audited: Audited) -> None:
    rounded = [item for item in audited.parity.values() if item["precision"] != "fp32"]
    assert len(rounded) == len(ROUNDED)
    for found in rounded:
        assert found["verdict"] != "FAIL", found["reasons"]
        assert any(note.startswith(NOTE) for note in found["notes"])
        assert found["measurement"]["weights"] is not None
        assert not [note for note in found["notes"] if "not compared one by one" in note]


def test_a_token_that_the_original_has_not_may_not_be_the_likeliest(audited: Audited) -> None:
    found = audited.of("loud")
    assert found["verdict"] == "FAIL"
    assert any(
        "its likeliest token is one that the original has not" in r for r in found["reasons"]
    )
    assert found["measurement"]["estimates"]["mean_kl"]["value"] < 1e-6  # of the common ones


@pytest.mark.parametrize(("form", "variant"), [*EXACT, *ROUNDED, ("mlx", "f32")])
def test_the_bytes_say_how_many_tokens_there_are(
    model: Path, tmp_path: Path, form: str, variant: str
) -> None:
    made = wider(model, tmp_path / "wider", 0.0)
    found, *_ = subjects([foreign(made, form, variant, tmp_path / "out")])
    assert found.vocabulary == WIDE


def test_what_the_runtime_can_do_it_can_on_common_tokens(model: Path, tmp_path: Path) -> None:
    made = wider(model, tmp_path / "wider", 4.0)
    protocols = (WrappingRuntime, TextRuntime, BatchRuntime, ManyRuntime, OwnTokenizerRuntime)
    for form, variant in EXACT:
        whole = open_runtime(export_tiny(made, form, variant, tmp_path), 1)
        common: Any = on_common_tokens(whole, COMMON)
        assert isinstance(common, WiderRuntime)
        able = [isinstance(whole, protocol) for protocol in protocols]
        assert [isinstance(common, protocol) for protocol in protocols] == able
        assert any(able)
        ids = common.tokenize("The capital of France")
        rows = whole.logits(ids).copy()
        assert np.array_equal(common.logits(ids), rows[:, :COMMON])
        blocks = [block.copy() for block in common.logit_blocks(ids)]
        assert np.array_equal(np.concatenate(blocks), rows[:, :COMMON])
        elsewhere = int((rows.argmax(-1) >= COMMON).sum())
        assert common.beyond is None if elsewhere == 0 else f"at {elsewhere} of" in common.beyond
        assert common.start(ids).shape == common.step(ids[0]).shape == (COMMON,)
        if isinstance(whole, ManyRuntime):
            assert common.start_many([ids, ids[:2]], 4).shape == (2, COMMON)
            assert common.step_many([1, 2]).shape == (2, COMMON)
        if isinstance(whole, BatchRuntime):
            shapes = [rows.shape for rows in common.padded_logits([ids, ids[:2]])]
            assert shapes == [(len(ids), COMMON), (2, COMMON)]
        common.close()


def test_only_tables_of_the_file_s_own_length_are_cut() -> None:
    weights = {EMBEDDING: np.zeros((6, 2)), "a.up_proj.weight": np.zeros((6, 2)),
               "lm_head.weight": np.zeros((6, 2)), "lm_head.bias": np.zeros(6)}  # fmt: skip
    rows = CommonRows(weights, Vocabulary(own=6, original=4))
    assert {name: len(rows[name]) for name in rows} == {
        EMBEDDING: 4, "a.up_proj.weight": 6, "lm_head.weight": 4, "lm_head.bias": 4,
    }  # fmt: skip
    assert len(CommonRows(weights, Vocabulary(own=5, original=4))[EMBEDDING]) == 6


@pytest.mark.parametrize("ours", [True, False])
def test_an_id_that_has_no_token_may_get_one_from_others(tmp_path: Path, ours: bool) -> None:
    """The original's rows without a token, as Qwen's, are where fine-tuners add theirs."""
    model = tiny.make_checkpoint(tmp_path / "m")
    made = with_a_token(tiny.make_checkpoint(tmp_path / "made"))
    artifact = export_tiny(made, "gguf", "f32", tmp_path)
    if not ours:
        (found,) = subjects([artifact.file(".gguf")])
        artifact = describe(found, against(model, "tiny")).artifact
    assert artifact.vocabulary is None
    texts = [finding.text for finding in compare_contents(artifact, model)]
    assert any("tokens[336]" in text for text in texts) == ours
    if not ours:
        assert texts == []
