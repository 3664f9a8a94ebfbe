"""Files without the original's rows that have no token: compared on the others, in every format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeproof.artifact import Vocabulary
from edgeproof.errors import InputError
from runtimes.audit.description import against, describe
from runtimes.audit.subjects import subjects
from runtimes.common_tokens import CommonRows
from runtimes.parity.localise.contents import compare_contents
from runtimes.parity.localise.metadata import compare_metadata
from runtimes.parity.reference import Reference
from runtimes.parity.suite import Document
from tests import tiny
from tests.test_audit_vocabulary import COMMON, EMBEDDING, MORE, WIDE, audit, foreign

EXACT = (("gguf", "f32"), ("onnx", "fp32"))
ROUNDED = (("gguf", "q8_0"), ("mlc", "q0f32"))
NOTE = (
    f"its vocabulary has {COMMON} tokens, {MORE} fewer than the original's, whose further rows are"
    f" of no token: compared on the {COMMON} that both have"
)
REASON = "the original's likeliest token is one for which the file has no row"


def padded(plain: Path, folder: Path, further: float) -> Path:
    """The checkpoint with rows of no token beyond: the first ones, `further` times as big."""
    made = tiny.make_checkpoint(folder, vocab_size=WIDE)
    weights = load_file(plain / "model.safetensors")
    rows = weights[EMBEDDING]
    weights[EMBEDDING] = np.concatenate([rows, further * rows[:MORE]])
    tiny.write_weights(made, weights)
    return made


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What converters see that drop those rows."""
    return tiny.make_checkpoint(tmp_path_factory.mktemp("plain") / "m", vocab_size=COMMON)


@pytest.fixture(scope="module")
def files(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("files")
    made = [foreign(plain, form, variant, out) for form, variant in (*EXACT, *ROUNDED)]
    return [next(path.glob("onnx/*.onnx"), path) for path in made]


def test_the_tokens_of_both_are_compared_and_that_is_said(
    plain: Path, files: list[Path], tmp_path: Path
) -> None:
    found = audit(files, padded(plain, tmp_path / "quiet", 0.0), tmp_path).parity.values()
    assert len(found) == len(EXACT) + len(ROUNDED)
    for item in found:
        assert item["verdict"] != "FAIL", item["reasons"]
        assert NOTE in item["notes"]
        assert not [note for note in item["notes"] if "not compared one by one" in note]
        measured = item["measurement"]
        assert measured["exact_weights"] == (measured["weights"] is None)
        if item["precision"] == "fp32":
            assert measured["exact_weights"]
            assert measured["estimates"]["mean_kl"]["value"] < 1e-6
    exact = [item for item in found if item["measurement"]["exact_weights"]]
    assert len(exact) >= len(EXACT)
    assert len(exact) < len(found)


def test_a_row_that_is_left_out_may_not_be_the_likeliest(
    plain: Path, files: list[Path], tmp_path: Path
) -> None:
    found = audit(files[:1], padded(plain, tmp_path / "loud", 4.0), tmp_path)
    (item,) = found.parity.values()
    assert item["verdict"] == "FAIL"
    assert any(REASON in reason for reason in item["reasons"])
    assert len(item["localisation"]["layer_errors"]) == 3 + 2
    assert item["localisation"]["findings"][0]["cause"] == "none"  # each step is right
    assert item["measurement"]["estimates"]["mean_kl"]["value"] < 1e-6  # of the common ones


def test_what_the_file_says_of_its_tokens_is_no_fault(
    plain: Path, files: list[Path], tmp_path: Path
) -> None:
    model = padded(plain, tmp_path / "m", 0.0)
    original = against(model, "tiny")
    for found in subjects(files):
        artifact = describe(found, original).artifact
        assert artifact.vocabulary == Vocabulary(COMMON, WIDE)
        assert compare_metadata(artifact, model) == compare_contents(artifact, model) == ()


def test_a_token_that_the_file_lacks_is_a_fault(
    plain: Path, files: list[Path], tmp_path: Path
) -> None:
    (found,) = subjects(files[:1])
    short = replace(found, vocabulary=COMMON - 1)
    model = padded(plain, tmp_path / "m", 0.0)
    for checkpoint in (plain, model):
        assert describe(short, against(checkpoint, "tiny")).artifact.vocabulary is None
    (model / "tokenizer.json").unlink()  # nobody knows
    assert describe(found, against(model, "tiny")).artifact.vocabulary is None


def test_the_original_may_not_have_replied_with_such_a_row() -> None:
    def reference(*ids: int) -> Reference:
        document = Document("chat 1", "chat", ids, 1)
        return Reference((document,), (np.zeros((len(ids), 2)),), np.zeros((6, 2)), ())

    vocabulary = Vocabulary(own=4, original=6)
    common = reference(1, 3).on_common_tokens(vocabulary)
    assert common.head.shape == (4, 2)
    assert common.beyond is not None
    assert common.beyond.shape == (2, 2)
    with pytest.raises(InputError, match="chat 1 has the token 4, for which the file"):
        reference(1, 4).on_common_tokens(vocabulary)
    larger = reference(1, 5)
    assert larger.on_common_tokens(Vocabulary(own=8, original=6)) is larger


def test_rows_that_the_file_lacks_are_the_original_s() -> None:
    vocabulary = Vocabulary(own=2, original=3)
    original = {EMBEDDING: np.arange(6.0).reshape(3, 2), "a.up_proj.weight": np.zeros((2, 2))}
    stored = {name: np.full((2, 2), 9.0) for name in (*original, "lm_head.weight")}
    filled = CommonRows(stored, vocabulary, original)
    for name in (EMBEDDING, "lm_head.weight"):  # the head is tied
        assert filled[name].tolist() == [[9, 9], [9, 9], [4, 5]]
    assert len(filled["a.up_proj.weight"]) == 2
    assert len(CommonRows(original, vocabulary)[EMBEDDING]) == 2
