"""A SentencePiece vocabulary of a .gguf file becomes the tokenizer.json that it was made from."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from edgeproof.errors import InputError
from export.sources.gguf_cache import converted
from export.sources.gguf_metadata import Metadata
from export.sources.gguf_sentencepiece import sentencepiece
from export.sources.gguf_tokens import CONTROL, Tokens
from tests.exported import export_tiny
from tests.sentencepiece import GEMMA, LEGACY, PIECES, SPACE, tokenizer, with_sentencepiece
from tests.tiny import GEMMA3, change_json, make_checkpoint

Json = dict[str, Any]
STRINGS = [
    "the thing in a ring",
    "the   thing\n\n in\t a  ring ",
    "naïve café — 3,141.59 € 日本語 🙂",
    "<|im_start|>the[USER] in<|im_end|>",
    "[USER][USER]  ing",
    " ",
    "",
]
# As Gemma's: runs of spaces and lines are tokens, which SentencePiece never splits.
RUNS = [SPACE * 2, SPACE * 3, "\n", "\n\n"]
TEXTS = st.sampled_from(STRINGS) | st.text() | st.text("then rig\n[]")


def source(folder: Path, document: Json, **changes: Any) -> tuple[Path, Path]:
    """A .gguf file of a tiny model with that tokenizer, and the checkpoint made from it."""
    made = with_sentencepiece(make_checkpoint(folder / "m", **changes), document)
    gguf = export_tiny(made, "gguf", "f32", folder).file(".gguf")
    return gguf, converted(gguf, "tiny").path


def own_tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def with_runs(document: Json) -> Json:
    """The tokenizer with Gemma's kind of added tokens, which the model's vocabulary has too."""
    vocab, last = document["model"]["vocab"], document["added_tokens"][-1]
    for text in RUNS:
        index = max(*vocab.values(), document["added_tokens"][-1]["id"]) + 1
        vocab[text] = index
        document["added_tokens"].append({**last, "content": text, "id": index})
    longest = [[SPACE * 2, SPACE], [SPACE, SPACE * 2], [SPACE, SPACE]]
    document["model"]["merges"] = [*longest, *document["model"]["merges"]]
    return document


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(tokenizer(LEGACY), id="a space before each stretch"),
        pytest.param(tokenizer(GEMMA), id="none"),
        pytest.param(with_runs(tokenizer(GEMMA)), id="runs of spaces, as Gemma's"),
    ],
)
def test_ids_are_the_originals_and_llama_cpps(tmp_path: Path, document: Json) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    gguf, folder = source(tmp_path, document)
    rebuilt, original = own_tokenizer(folder), own_tokenizer(tmp_path / "m")
    model = llama_cpp.Llama(str(gguf), vocab_only=True, verbose=False)

    @settings(max_examples=300, deadline=None)
    @given(TEXTS)
    def check(text: str) -> None:
        text = text.replace(SPACE, "").replace("\0", "")
        ids = rebuilt.encode(text).ids
        assert ids == model.tokenize(text.encode(), add_bos=False, special=True)
        assert ids == original.encode(text).ids
        if document["normalizer"] == GEMMA["normalizer"]:
            assert rebuilt.decode(ids) == original.decode(ids)

    check()
    model.close()


def test_merges_are_the_originals(tmp_path: Path) -> None:
    """Of pieces that are made in several ways, the longest left part first, as transformers has."""
    document = tokenizer(GEMMA)
    rank = {text: number for number, text in enumerate(PIECES)}
    document["model"]["merges"].sort(key=lambda pair: (rank["".join(pair)], -len(pair[0])))
    _, folder = source(tmp_path, document)
    model = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    assert model["merges"] == document["model"]["merges"]
    user = document["added_tokens"][-1]
    assert model["vocab"] == {**document["model"]["vocab"], user["content"]: user["id"]}
    assert {key: value for key, value in model.items() if key not in ("merges", "vocab")} == {
        key: value for key, value in document["model"].items() if key not in ("merges", "vocab")
    }


def test_a_gemma_comes_back_with_its_tokenizer(tmp_path: Path) -> None:
    """Exported again it has the same tensors, tokens, scores and types.

    What llama.cpp searches, as `<unk>`, is an added token, and so a control token then, as it is in
    files made of published Gemmas.
    """
    gguf, folder = source(tmp_path, with_runs(tokenizer(GEMMA)), **GEMMA3)
    again = export_tiny(folder, "gguf", "f32", tmp_path / "again").file(".gguf")
    first, second = GGUFReader(gguf), GGUFReader(again)
    for ours, theirs in zip(first.tensors, second.tensors, strict=True):
        assert ours.name == theirs.name
        np.testing.assert_array_equal(ours.data, theirs.data)
    said = [
        {key: field.contents() for key, field in file.fields.items() if key.startswith("tokenizer")}
        for file in (first, second)
    ]
    unknown = said[0]["tokenizer.ggml.tokens"].index("<unk>")
    said[0]["tokenizer.ggml.token_type"][unknown] = CONTROL
    said[0]["tokenizer.ggml.scores"][unknown] = -1000.0
    assert said[1] == said[0]


@pytest.mark.parametrize("add", [True, False])
def test_the_begin_token_is_added_where_the_file_says_so(tmp_path: Path, add: bool) -> None:
    document = tokenizer(LEGACY)
    if add:
        document["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {
                "<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}
            },
        }
    _, folder = source(tmp_path, document)
    for text in STRINGS:
        ids = own_tokenizer(folder).encode(text).ids
        assert ids == own_tokenizer(tmp_path / "m").encode(text).ids


def test_a_phi_3s_tokens_take_the_spaces_after_them(tmp_path: Path) -> None:
    """llama.cpp knows that by the model's name; the file has it nowhere else."""
    llama_cpp = pytest.importorskip("llama_cpp")
    document = tokenizer(LEGACY)
    last = document["added_tokens"][-1]
    for number, text in enumerate(("<s>", "</s>", "<|user|>"), last["id"] + 1):
        document["added_tokens"].append({**last, "content": text, "id": number, "special": True})
    made = with_sentencepiece(make_checkpoint(tmp_path / "m"), document)
    (made / "README.md").write_text("---\nmodel_name: Phi-3 tiny\n---\n")
    gguf = export_tiny(made, "gguf", "f32", tmp_path).file(".gguf")
    rebuilt = own_tokenizer(converted(gguf, "tiny").path)
    model = llama_cpp.Llama(str(gguf), vocab_only=True, verbose=False)
    for text in ("<|user|>\n the", "<s> the", "</s>  in[USER]  a", "<|im_end|>\n\n a", "<unk> a"):
        ids = rebuilt.encode(text).ids
        assert ids == model.tokenize(text.encode(), add_bos=False, special=True), text
    model.close()
    assert rebuilt.encode("<|user|> the").ids == rebuilt.encode("<|user|>the").ids
    assert rebuilt.encode("<s> the").ids != rebuilt.encode("<s>the").ids


def edited(gguf: Path, key: str, value: bytes) -> Path:
    """The file with the first bytes of an array replaced."""
    field = GGUFReader(gguf).fields[f"tokenizer.ggml.{key}"]
    data = bytearray(gguf.read_bytes())
    at = data.index(field.name.encode()) + len(field.name) + 4 + 4 + 8
    data[at : at + len(value)] = value
    gguf.write_bytes(data)
    return gguf


def test_scores_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    gguf, _ = source(tmp_path, tokenizer(GEMMA))
    with pytest.raises(InputError, match=r"tokenizer\.ggml\.scores should be an array of finite"):
        converted(edited(gguf, "scores", np.float32(np.nan).tobytes()), "tiny")


def test_pieces_of_the_same_score_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gguf, _ = source(tmp_path, tokenizer(GEMMA))
    with caplog.at_level(logging.WARNING):
        converted(edited(gguf, "scores", np.zeros(384, np.float32).tobytes()), "tiny")
    assert "several pieces have the same score" in caplog.text


def test_a_file_without_scores_is_refused(tmp_path: Path) -> None:
    gguf, _ = source(tmp_path, tokenizer(GEMMA))
    gguf.write_bytes(gguf.read_bytes().replace(b"tokenizer.ggml.scores", b"tokenizer.ggml.sc0res"))
    with pytest.raises(InputError, match=r"metadata tokenizer\.ggml\.scores is missing"):
        converted(gguf, "tiny")


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(["a" * n for n in range(1, 1200)], id="pairs without number"),
        pytest.param(["a" * n for n in range(1, 60_000, 200)], id="long pieces"),
        pytest.param(["ab" * 5_000_000], id="one piece of ten million characters"),
    ],
)
def test_pieces_that_can_be_joined_in_endless_ways_are_refused(
    pieces: list[str], tmp_path: Path
) -> None:
    """Each takes hours or all memory where every cut of every piece is tried."""
    scores = -np.arange(len(pieces), dtype=np.float32)
    stored = {"tokenizer.ggml.tokens": pieces, "tokenizer.ggml.scores": scores}
    begin = time.process_time()
    with pytest.raises(InputError, match=r"m\.gguf: tokenizer\.ggml\.tokens: its pieces") as caught:
        sentencepiece(Tokens(Metadata(Path("m.gguf"), stored)))
    assert time.process_time() - begin < 20
    assert "\n" not in str(caught.value)
    document = tokenizer(GEMMA)
    for index, text in enumerate(pieces, len(document["model"]["vocab"]) + 50):
        document["model"]["vocab"].setdefault(text, index)
    made = with_sentencepiece(make_checkpoint(tmp_path / "m", vocab_size=2048), document)
    with pytest.raises(InputError, match=r"tokenizer\.json: (its pieces|no merge)"):
        export_tiny(made, "gguf", "f32", tmp_path)


def test_long_runs_of_one_character_are_read(tmp_path: Path) -> None:
    pieces = [SPACE * n for n in range(1, 129)]
    scores = -np.arange(len(pieces), dtype=np.float32)
    stored = {"tokenizer.ggml.tokens": pieces, "tokenizer.ggml.scores": scores}
    merges = sentencepiece(Tokens(Metadata(Path("m.gguf"), stored))).model["merges"]
    assert len(merges) == 128 * 127 // 2
    assert merges[:3] == [[SPACE] * 2, [SPACE * 2, SPACE], [SPACE, SPACE * 2]]


def test_a_checkpoint_names_what_ends_a_text(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m")
    change_json(folder / "tokenizer_config.json", unk_token="<unk>")
    with_sentencepiece(folder, tokenizer(GEMMA))
    made = converted(export_tiny(folder, "gguf", "f32", tmp_path).file(".gguf"), "tiny").path
    found = json.loads((made / "tokenizer.json").read_text("utf-8"))
    assert found["model"]["unk_token"] == "<unk>"
    (unknown,) = (item for item in found["added_tokens"] if item["content"] == "<unk>")
    assert unknown["special"]
