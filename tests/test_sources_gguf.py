"""A .gguf file becomes the checkpoint that it was made from; a bad one is refused in one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from edgeproof.errors import InputError
from export.checkpoint import open_checkpoint
from export.checkpoint.model_card import read_model_card
from export.llamacpp.pre_types import PRE_TYPES
from export.sources import Source, resolve
from export.sources.gguf_checkpoint import write_checkpoint
from export.sources.gguf_types import FLOATS, QUANTISED
from tests import tiny, tiny_gguf
from tests.exported import export_tiny

STRINGS = [
    "in 1999,  42",
    "The capital of France is Paris, and 42 is a number.",
    "def add(a, b):\n    return a + b\n\n\n  x",
    "I'll DON'T we've 1234567 ...!!  <|im_start|>user\nhi<|im_end|>\n",
    "naïve café — 3,141.59 €\t\ttabs \r\n windows",
    "日本語のテキスト ½ ٣٤ 𝟘",
    " leading, trailing   ",
    "};\n};\n};\n};\n —so —so—so—so",
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def values(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint as it is stored."""
    checkpoint = open_checkpoint(folder)
    file = checkpoint._files[0]
    return {parameter.name: file.tensor(parameter.name) for parameter in checkpoint.parameters}


@pytest.mark.parametrize("kind", [*FLOATS, *QUANTISED])
def test_every_storage_type_becomes_the_values_that_the_gguf_library_reads(
    tmp_path: Path, kind: str
) -> None:
    made = tiny_gguf.write(tmp_path, kind)
    source = resolve(str(made.path))
    config = json.loads((source.path / "config.json").read_text())
    for name, value in values(source.path).items():
        matrix = value.ndim > 1
        assert value.dtype == FLOATS.get(kind if matrix else "F32", np.float32)
        stored = tiny_gguf.as_stored(name, value.astype(np.float32), config)
        np.testing.assert_array_equal(stored, made.stored[tiny_gguf.gguf_name(name)])


def test_an_unquantised_file_gives_back_weights_config_and_name(tmp_path: Path) -> None:
    made = tiny_gguf.write(tmp_path, "F32", attention_bias=False, mlp_bias=False)
    source = resolve(str(made.path))
    original = values(made.checkpoint)
    assert all(np.array_equal(value, original[name]) for name, value in values(source.path).items())
    assert json.loads((source.path / "config.json").read_text()) == json.loads(
        (made.checkpoint / "config.json").read_text()
    )
    assert source == Source(source.path, label="tiny", name="Tiny Test")


@pytest.mark.parametrize(("kind", "dtype"), [("F16", "float16"), ("BF16", "bfloat16")])
def test_half_precision_stays_half_precision(tmp_path: Path, kind: str, dtype: str) -> None:
    source = resolve(str(tiny_gguf.write(tmp_path, kind).path))
    assert json.loads((source.path / "config.json").read_text())["torch_dtype"] == dtype
    assert values(source.path)["model.embed_tokens.weight"].dtype == np.dtype(
        {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[dtype]
    )


def test_an_output_matrix_makes_the_head_untied(tmp_path: Path) -> None:
    untied = resolve(str(tiny_gguf.write(tmp_path, "Q8_0", tie_word_embeddings=False).path))
    assert not open_checkpoint(untied.path).config.tied
    assert "lm_head.weight" in values(untied.path)


def test_the_rebuilt_tokenizer_gives_the_ids_of_the_original(tmp_path: Path) -> None:
    made = tiny_gguf.write(tmp_path)
    rebuilt = Tokenizer.from_file(str(resolve(str(made.path)).path / "tokenizer.json"))
    original = Tokenizer.from_file(str(made.checkpoint / "tokenizer.json"))

    @settings(max_examples=200, deadline=None)
    @given(st.text() | st.sampled_from(STRINGS))
    def check(text: str) -> None:
        ids = original.encode(text).ids
        assert rebuilt.encode(text).ids == ids
        assert rebuilt.decode(ids) == original.decode(ids)

    check()


def undivided_merges() -> dict[str, Any]:
    """A byte-level BPE whose merges cross every border that a pre-tokenizer could draw."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=tiny.VOCAB,
        special_tokens=tiny.SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([part for text in STRINGS for part in text.split("a")], trainer)
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return model


def test_every_pre_tokenizer_splits_as_llama_cpp_does_and_unlike_the_others(
    tmp_path: Path,
) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    merges = undivided_merges()
    seen: dict[str, list[list[int]]] = {}
    for pre, kind in PRE_TYPES.items():  # names that share an entry are checked each
        made = tiny_gguf.write(tmp_path, pre=pre, tokenizer=merges, num_hidden_layers=1)
        tokenizer = Tokenizer.from_file(str(resolve(str(made.path)).path / "tokenizer.json"))
        model = llama_cpp.Llama(str(made.path), vocab_only=True, verbose=False)
        ids_of_texts = seen[repr(kind)] = [tokenizer.encode(text).ids for text in STRINGS]
        for text, ids in zip(STRINGS, ids_of_texts, strict=True):
            assert ids == model.tokenize(text.encode(), add_bos=True, special=True), (pre, text)
        model.close()
    splits = {tuple(map(tuple, ids)) for ids in seen.values()}
    assert len(splits) == len(seen)


@pytest.mark.parametrize("add", [True, False])
def test_begin_and_end_tokens_are_added_where_the_file_asks_for_them(
    tmp_path: Path, add: bool
) -> None:
    def metadata(writer: GGUFWriter) -> None:
        writer.add_add_bos_token(add)
        writer.add_add_eos_token(add)

    made = tiny_gguf.write(tmp_path, pre="llama-bpe", metadata=metadata)
    tokenizer = Tokenizer.from_file(str(resolve(str(made.path)).path / "tokenizer.json"))
    bare = tokenizer.encode("Once upon", add_special_tokens=False).ids
    assert tokenizer.encode("Once upon").ids == ([1, *bare, 2] if add else bare)


def test_the_second_resolve_reuses_the_conversion_and_damage_is_repaired(tmp_path: Path) -> None:
    made = tiny_gguf.write(tmp_path)
    first = resolve(str(made.path)).path
    weights = first / "model.safetensors"
    stamp, content = weights.stat().st_mtime_ns, weights.read_bytes()
    assert resolve(str(made.path)).path == first
    assert weights.stat().st_mtime_ns == stamp
    weights.write_bytes(content[:-1])
    assert resolve(str(made.path)).path == first
    assert weights.read_bytes() == content


def test_bytes_do_not_depend_on_the_files_name(tmp_path: Path) -> None:
    made = tiny_gguf.write(tmp_path)
    renamed = made.path.with_name("other name.bin")
    first = resolve(str(made.path))
    made.path.rename(renamed)
    second = resolve(str(renamed))
    assert second.label == "other name"
    assert second.name == first.name
    assert first.path != second.path
    for file in first.path.iterdir():
        assert (second.path / file.name).read_bytes() == file.read_bytes()


def test_processes_that_start_together_share_one_conversion(tmp_path: Path) -> None:
    made = tiny_gguf.write(tmp_path)
    code = f"from export.sources import resolve; print(resolve({str(made.path)!r}).path)"
    command, root = [sys.executable, "-c", code], Path(__file__).parents[1]
    running = [subprocess.Popen(command, stdout=-1, stderr=-1, cwd=root) for _ in range(3)]
    done = [process.communicate() for process in running]
    assert {process.returncode for process in running} == {0}, done
    assert len({output for output, _ in done}) == 1
    open_checkpoint(Path(done[0][0].decode().strip()))


REFUSED_METADATA = {
    "expert_count": (lambda w: w.add_expert_count(8), "expert_count"),
    "rope scaling": (lambda w: w.add_string("llama.rope.scaling.type", "yarn"), "rope.scaling"),
    "head size": (lambda w: w.add_key_length(32), "rope.dimension_count"),
    "split": (lambda w: w.add_uint16("split.count", 3), "gguf-split --merge"),
    "bad alignment": (lambda w: w.add_uint32("general.alignment", 48), "alignment"),
    "wrong type": (lambda w: w.add_string("llama.attention.value_length", "x"), "value_length"),
}


@pytest.mark.parametrize("case", list(REFUSED_METADATA))
def test_features_beyond_a_plain_llama_are_refused_by_name(tmp_path: Path, case: str) -> None:
    change, expected = REFUSED_METADATA[case]
    made = tiny_gguf.write(tmp_path, metadata=change)
    with pytest.raises(InputError, match=re.escape(expected)):
        resolve(str(made.path))


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    made = tiny_gguf.write(tmp_path, architecture="gemma2")
    with pytest.raises(InputError, match="unknown architecture 'gemma2'"):
        resolve(str(made.path))


@pytest.mark.parametrize(
    ("pre", "expected"),
    [("jais-2", "'jais-2' is unknown"), (None, "tokenizer.ggml.pre is missing")],
)
def test_an_unknown_pre_tokenizer_is_refused(
    tmp_path: Path, pre: str | None, expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        resolve(str(tiny_gguf.write(tmp_path, pre=pre).path))


def test_a_wordpiece_tokenizer_is_refused(tmp_path: Path) -> None:
    made = tiny_gguf.write(tmp_path)
    data = made.path.read_bytes()
    key = b"tokenizer.ggml.model"
    at = data.index(key) + len(key) + 4 + 8
    made.path.write_bytes(data[:at] + b"bert" + data[at + 4 :])
    with pytest.raises(InputError, match="tokenizer model 'bert'"):
        resolve(str(made.path))


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("blk.0.attn_q.weight", None, "attn_q.weight is missing"),
        ("blk.0.attn_q.bias", np.zeros(256, np.float32), "unexpected tensor blk.0.attn_q.bias"),
        ("output_norm.weight", np.ones(128, np.float32), "output_norm.weight has shape"),
        ("token_embd.weight", np.ones((9, 256), np.float32), "token_embd.weight has shape"),
        ("output_norm.weight", np.full(256, np.nan, np.float32), "NaN or infinite"),
    ],
)
def test_missing_extra_misshapen_and_nan_tensors_are_refused_by_name(
    tmp_path: Path, cache: Path, name: str, array: np.ndarray | None, expected: str
) -> None:
    def edit(arrays: dict[str, np.ndarray]) -> None:
        arrays.pop(name, None)
        if array is not None:
            arrays[name] = array

    made = tiny_gguf.write(tmp_path, tensors=edit)
    with pytest.raises(InputError, match=re.escape(expected)) as caught:
        resolve(str(made.path))
    assert "\n" not in str(caught.value)
    assert not [path for path in cache.glob("checkpoints/*") if path.is_dir()]


def test_a_type_that_cannot_be_dequantised_is_refused_with_the_list(tmp_path: Path) -> None:
    made = tiny_gguf.write(tmp_path, "Q8_0")
    data = bytearray(made.path.read_bytes())
    name = b"token_embd.weight"
    at = data.index(name) + len(name) + 4 + 2 * 8
    for code, expected in ((16, "IQ2_XXS"), (9999, "type 9999")):
        data[at : at + 4] = code.to_bytes(4, "little")
        made.path.write_bytes(data)
        with pytest.raises(InputError, match=f"stored as {expected}; supported are F32"):
            resolve(str(made.path))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not a GGUF file"),
        (b"PK\x03\x04 a zip file", "not a GGUF file"),
        (b"GGUF", "truncated"),
        (b"GGUF\x01\x00\x00\x00" + bytes(16), "version 1"),
        (b"GGUF\x00\x00\x00\x03" + bytes(16), "big-endian"),
        (b"GGUF\x03\x00\x00\x00" + b"\xff" * 16, "truncated"),
    ],
)
def test_what_is_not_a_readable_gguf_is_refused(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError, match=expected):
        resolve(str(path))


def test_no_truncation_and_no_flipped_byte_ends_in_anything_but_one_line(tmp_path: Path) -> None:
    made = tiny_gguf.write(tmp_path, "Q4_1", num_hidden_layers=1)
    data = made.path.read_bytes()
    header = data.index(b"blk.0.ffn_norm.weight") + 100
    target = tmp_path / "hostile.gguf"
    out = tmp_path / "out"
    out.mkdir()

    def convert(content: bytes) -> None:
        target.write_bytes(content)
        try:
            write_checkpoint(target, out)
        except InputError as error:
            assert "\n" not in str(error)

    @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, len(data) - 1))
    def truncated(length: int) -> None:
        target.write_bytes(data[:length])
        with pytest.raises(InputError):
            write_checkpoint(target, out)

    # The interesting bytes are lengths, counts and types: most are near the start and the end.
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.integers(0, 1500) | st.integers(header - 1500, header) | st.integers(0, header),
        st.sampled_from([0, 1, 2, 8, 9, 0x7F, 0x80, 0xFF]),
    )
    def flipped(at: int, value: int) -> None:
        convert(data[:at] + bytes([value]) + data[at + 1 :])

    truncated()
    flipped()


def card_of(folder: Path, metadata: Callable[[GGUFWriter], None]) -> tuple[bytes, dict[str, Any]]:
    source = resolve(str(tiny_gguf.write(folder, metadata=metadata).path))
    return (source.path / "README.md").read_bytes(), read_model_card(source.path)


def test_rights_and_origin_become_a_model_card(tmp_path: Path) -> None:
    def metadata(writer: GGUFWriter) -> None:
        writer.add_license("other")
        writer.add_license_name("Ünïcode: 'licence' 🙂\u2028---\n---")
        writer.add_license_link("https://example.org/l")
        writer.add_languages(["no", "en"])
        writer.add_tags(["chat", "true"])
        writer.add_finetune("not in a card")
        writer.add_base_model_count(2)
        writer.add_base_model_repo_url(0, "https://huggingface.co/org/base")
        writer.add_base_model_name(1, "Elsewhere")
        writer.add_dataset_count(1)
        writer.add_dataset_repo_url(0, "https://huggingface.co/datasets/org/data")

    first, card = card_of(tmp_path / "a", metadata)
    assert card == {
        "license": "other",
        "license_name": "Ünïcode: 'licence' 🙂\u2028---\n---",
        "license_link": "https://example.org/l",
        "language": ["no", "en"],
        "tags": ["chat", "true"],
        "base_model": ["org/base", {"name": "Elsewhere"}],
        "datasets": ["org/data"],
    }
    assert card_of(tmp_path / "b", metadata)[0] == first


def test_an_export_of_a_gguf_file_keeps_its_licence(tmp_path: Path) -> None:
    def metadata(writer: GGUFWriter) -> None:
        writer.add_license("apache-2.0")
        writer.add_languages(["en"])
        writer.add_organization("Somebody")

    source = resolve(str(tiny_gguf.write(tmp_path, metadata=metadata).path))
    path = export_tiny(source.path, "gguf", "f16", tmp_path / "out").file(".gguf")
    fields = {key: field.contents() for key, field in GGUFReader(path).fields.items()}
    assert fields["general.license"] == "apache-2.0"
    assert fields["general.languages"] == ["en"]
    assert fields["general.organization"] == "Somebody"


def test_further_ends_of_a_reply_come_back(tmp_path: Path) -> None:
    folder = tiny.make_checkpoint(tmp_path / "m")
    tiny.change_json(folder / "generation_config.json", eos_token_id=[2, 300, 301])
    gguf = export_tiny(folder, "gguf", "f32", tmp_path).file(".gguf")
    made = resolve(str(gguf)).path
    said = json.loads((made / "generation_config.json").read_text())
    assert said["eos_token_id"] == [2, 300, 301]
    assert json.loads((made / "config.json").read_text())["eos_token_id"] == 2


def test_metadata_of_a_wrong_type_makes_no_card(tmp_path: Path) -> None:
    def metadata(writer: GGUFWriter) -> None:
        writer.add_uint32("general.license", 3)
        writer.add_array("general.tags", [1, 2])
        writer.add_uint32("general.base_model.count", 4_000_000_000)

    source = resolve(str(tiny_gguf.write(tmp_path, metadata=metadata).path))
    assert not (source.path / "README.md").exists()
