"""The metadata that is read without gguf-py is what gguf-py reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf import GGUFReader

from export.errors import InputError
from runtimes.gguf_metadata import read_metadata
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


@pytest.mark.parametrize("size", [0, 3, 20, 60, 3000])
def test_a_truncated_file_is_refused(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match="cannot be read as a GGUF file"):
        read_metadata(path)


def test_another_file_is_refused(path: Path) -> None:
    path.write_bytes(b"GGML" + path.read_bytes()[4:])
    with pytest.raises(InputError, match="it begins with b'GGML'"):
        read_metadata(path)
