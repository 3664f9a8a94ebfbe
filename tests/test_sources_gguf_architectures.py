"""What of a .gguf file's metadata only some architectures have, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeproof.errors import InputError
from export.sources.gguf_architectures import ARCHITECTURES
from export.sources.gguf_cache import converted
from export.sources.gguf_checkpoint import write_checkpoint
from export.sources.gguf_metadata import Metadata
from tests.exported import export_tiny
from tests.sentencepiece import GEMMA, tokenizer, with_sentencepiece
from tests.tiny import GEMMA3, PHI3, make_checkpoint

PATTERN = "attention.sliding_window_pattern"
FULL, SLIDING = "full_attention", "sliding_attention"


def gemma3(**changes: Any) -> dict[str, Any]:
    """What config.json says of a Gemma 3 with that metadata, beyond what every family has."""
    values = {
        "block_count": 7,
        "embedding_length": 5376,
        "attention.head_count": 32,
        "attention.key_length": 128,
        "attention.sliding_window": 512,
        **changes,
    }
    stated = {f"gemma3.{key}": value for key, value in values.items()}
    architecture = next(item for item in ARCHITECTURES if item.name == "gemma3")
    return architecture.own(Metadata(Path("model.gguf"), stated))


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, [SLIDING] * 5 + [FULL, SLIDING]),
        ({PATTERN: 3}, [SLIDING, SLIDING, FULL] * 2 + [SLIDING]),
        ({PATTERN: 0}, [SLIDING] * 7),
        ({PATTERN: np.array([True, False] * 3 + [False])}, [SLIDING, FULL] * 3 + [FULL]),
        ({"attention.sliding_window": 0}, [FULL] * 7),
    ],
)
def test_layers_with_a_window_are_llama_cpps(changes: dict[str, Any], kinds: list[str]) -> None:
    """`load_swa_pattern`: of each layer, or how many make a round, or rounds of six."""
    said = gemma3(**changes)
    assert said["layer_types"] == kinds
    assert ("sliding_window" in said) == (SLIDING in kinds)


def test_what_a_gemmas_file_does_not_say_is_llama_cpps() -> None:
    said = gemma3()
    assert said["rope_local_base_freq"] == 10_000
    assert said["query_pre_attn_scalar"] == 128
    assert said["final_logit_softcapping"] is None
    assert gemma3(block_count=62)["query_pre_attn_scalar"] == 168
    assert gemma3(final_logit_softcapping=30.0)["final_logit_softcapping"] == 30


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        (np.array([True] * 3), "does not say which of 7 layers have one"),
        (np.zeros(7, np.float32), "does not say which of 7 layers have one"),
        (-1, "damaged file"),
        ("six", "should be of type int"),
    ],
)
def test_a_pattern_that_cannot_be_read_is_refused(pattern: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        gemma3(**{PATTERN: pattern})


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -8.0])
@pytest.mark.parametrize("table", ["short", "long"])
def test_damaged_tables_of_divisors_are_refused(tmp_path: Path, table: str, value: float) -> None:
    folder = make_checkpoint(tmp_path / "m", **PHI3)
    gguf = export_tiny(folder, "gguf", "f32", tmp_path).file(".gguf")
    (tensor,) = (t for t in GGUFReader(gguf).tensors if t.name == f"rope_factors_{table}.weight")
    data = bytearray(gguf.read_bytes())
    data[tensor.data_offset : tensor.data_offset + 4] = np.float32(value).tobytes()
    gguf.write_bytes(data)
    with pytest.raises(InputError, match=f"{table}_factor must be a positive number") as caught:
        converted(gguf, "tiny")
    assert str(gguf) in str(caught.value)


@pytest.mark.parametrize("name", ["rope_factors_long.weight", "blk.1.ffn_up.weight"])
def test_a_missing_tensor_is_named(tmp_path: Path, name: str) -> None:
    folder = make_checkpoint(tmp_path / "m", **PHI3)
    gguf = export_tiny(folder, "gguf", "f32", tmp_path).file(".gguf")
    data = gguf.read_bytes()
    gguf.write_bytes(data.replace(name.encode(), name.replace("weight", "wait__").encode()))
    with pytest.raises(InputError, match=f"tensor {name} is missing"):
        converted(gguf, "tiny")


def test_no_flipped_byte_ends_in_anything_but_one_line(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", **{**GEMMA3, "num_hidden_layers": 1})
    with_sentencepiece(folder, tokenizer(GEMMA))
    gguf = export_tiny(folder, "gguf", "f32", tmp_path).file(".gguf")
    data = gguf.read_bytes()
    header = min(tensor.data_offset for tensor in GGUFReader(gguf).tensors)
    target, out = tmp_path / "hostile.gguf", tmp_path / "out"
    out.mkdir()

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.integers(0, 2500) | st.integers(header - 1500, header - 1) | st.integers(0, header - 1),
        st.sampled_from([0, 1, 2, 8, 9, 0x7F, 0x80, 0xFF]),
    )
    def flipped(at: int, value: int) -> None:
        target.write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
        try:
            write_checkpoint(target, out)
        except InputError as error:
            assert "\n" not in str(error)

    flipped()
