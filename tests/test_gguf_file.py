"""What is read without gguf-py is what gguf-py reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from edgeproof.errors import InputError
from runtimes.gguf_file import read_file, read_metadata
from tests.exported import export_tiny
from tests.tiny import FAMILIES, make_checkpoint


@pytest.fixture
def path(tmp_path: Path) -> Path:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **FAMILIES["llama3 rope"])
    return export_tiny(checkpoint, "gguf", "q8_0", tmp_path).files(".gguf")[0]


def test_every_key_has_the_value_that_gguf_py_reads(path: Path) -> None:
    fields = GGUFReader(path).fields
    expected = {key: field.contents() for key, field in fields.items() if "GGUF." not in key}
    assert read_metadata(path) == expected
    assert len(expected) > 20


def test_every_tensor_is_what_gguf_py_reads(path: Path) -> None:
    theirs = GGUFReader(path).tensors
    metadata, ours = read_file(path)
    assert metadata == read_metadata(path)
    assert [(t.name, t.type, list(t.shape), t.data.tobytes()) for t in ours] == [
        (t.name, t.tensor_type, [*reversed(t.shape.tolist())], t.data.tobytes()) for t in theirs
    ]


def test_tensors_begin_where_the_alignment_says(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_custom_alignment(256)
    values = {name: np.arange(size, dtype=np.float32) for name, size in (("a", 5), ("b", 7))}
    for name, array in values.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _, tensors = read_file(path)
    assert {t.name: t.data.view(np.float32).tolist() for t in tensors} == {
        name: array.tolist() for name, array in values.items()
    }


def test_a_tensor_beyond_the_end_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"output_norm\.weight: .* beyond the file's end"):
        read_file(path)


@pytest.mark.parametrize("size", [0, 3, 20, 60, 3000])
def test_a_truncated_file_is_refused(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match="cannot be read as a GGUF file"):
        read_metadata(path)


def test_another_file_is_refused(path: Path) -> None:
    path.write_bytes(b"GGML" + path.read_bytes()[4:])
    with pytest.raises(InputError, match="it begins with b'GGML'"):
        read_metadata(path)
