"""Splits are those of llama.cpp's converter, and llama.cpp computes what it did before."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from export.checkpoint import open_checkpoint
from export.gguf import FORMAT
from export.gguf.splits import plan_splits, with_splits
from export.sources import resolve
from runtimes import llamacpp
from runtimes.formats import dequantise
from tests.exported import export_tiny
from tests.test_command_line import run
from tests.tiny import VOCAB, make_checkpoint

F16 = FORMAT.variant("f16")
LIMITS: dict[str, dict[str, Any]] = {
    "size": {"split_max_size": "60K"},
    "tensors": {"split_max_tensors": 7},
    "both": {"split_max_size": "100K", "split_max_tensors": 11},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("m"))


@pytest.fixture(scope="module")
def whole(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export_tiny(checkpoint, "gguf", "f16", tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_splits_are_byte_for_byte_those_of_gguf_py(
    checkpoint: Path, whole: Artifact, tmp_path: Path, limits: dict[str, Any]
) -> None:
    """gguf-py's writer is the converter's. The first split differs from its in other metadata."""
    size = int(limits.get("split_max_size", "0K")[:-1]) * 1000
    tensors = limits.get("split_max_tensors", 0)
    path = tmp_path / whole.file(".gguf").name
    writer = gguf.GGUFWriter(path, "llama", split_max_size=size, split_max_tensors=tensors)
    for tensor in gguf.GGUFReader(whole.file(".gguf")).tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    expected = sorted(tmp_path.glob("*.gguf"))
    made = export_tiny(checkpoint, "gguf", "f16", tmp_path / "out", **limits).files(".gguf")
    assert [file.name for file in made] == [file.name for file in expected]
    assert len(made) > 3
    for ours, theirs in zip(made[1:], expected[1:], strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
    ours, theirs = gguf.GGUFReader(made[0]), gguf.GGUFReader(expected[0])
    assert [t.name for t in ours.tensors] == [t.name for t in theirs.tensors]
    for key in ("split.no", "split.count", "split.tensors.count"):
        assert ours.fields[key].types == theirs.fields[key].types
        assert ours.fields[key].contents() == theirs.fields[key].contents()


def test_llama_cpp_and_the_reader_see_the_unsplit_model(
    checkpoint: Path, whole: Artifact, tmp_path: Path
) -> None:
    parts = export_tiny(checkpoint, "gguf", "f16", tmp_path, split_max_size="60K")
    ids = np.random.default_rng(0).integers(0, VOCAB, 40).tolist()
    logits = []
    for artifact in (whole, parts):
        runtime = llamacpp.open_runtime(artifact, 1)
        logits.append(runtime.logits(ids))
        runtime.close()
    assert np.array_equal(*logits)
    expected, found = dequantise(whole), dequantise(parts)
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_a_missing_split_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    parts = export_tiny(checkpoint, "gguf", "f16", tmp_path, split_max_tensors=7)
    parts.files(".gguf")[2].unlink()
    with pytest.raises(InputError, match=r"llama\.cpp cannot load it"):
        llamacpp.open_runtime(parts, 1)


def test_a_model_that_fits_is_not_split(
    checkpoint: Path, whole: Artifact, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        one = export_tiny(checkpoint, "gguf", "f16", tmp_path, split_max_size="1G")
    assert one.file(".gguf").read_bytes() == whole.file(".gguf").read_bytes()
    assert "fits into one file" in caplog.text


@pytest.mark.parametrize(
    ("sizes", "limits", "expected"),
    [
        ([5, 5, 5], {"split_max_size": "10"}, [2, 1]),
        ([5, 5, 5], {"split_max_size": "9"}, [1, 1, 1]),
        ([50, 1, 1], {"split_max_size": "9"}, [1, 2]),
        ([1, 50, 1], {"split_max_size": "9"}, [1, 1, 1]),
        ([1, 1, 1], {"split_max_tensors": 2}, [2, 1]),
        ([1, 1, 1], {}, [3]),
    ],
)
def test_every_tensor_is_in_one_split_within_the_limit(
    sizes: list[int], limits: dict[str, Any], expected: list[int]
) -> None:
    splits = plan_splits("x", sizes, with_splits(F16, **limits))
    assert [len(split.tensors) for split in splits] == expected
    assert [i for split in splits for i in split.tensors] == list(range(len(sizes)))


def test_a_limit_is_part_of_the_recipe_and_of_the_name() -> None:
    giga, mega = with_splits(F16, "1G"), with_splits(F16, "1000m")
    assert giga == mega != with_splits(F16, "1M")
    assert (giga.name, giga.aliases) == ("f16-split-1G", ())
    assert with_splits(F16, "500M", 9).name == "f16-split-500M-9-tensors"
    assert with_splits(F16) == F16


@pytest.mark.parametrize("size", ["0", "-1M", "1T", "M", "1.5G", "1 G", "9" * 40, "", "١M"])
def test_a_size_that_is_none_is_refused(size: str) -> None:
    with pytest.raises(InputError, match="--split-max-size"):
        with_splits(F16, size)


def test_the_command_writes_splits_beside_the_whole_file_and_reuses_them(
    checkpoint: Path, tmp_path: Path
) -> None:
    command = ("export.gguf", "--model", checkpoint, "--dtype", "f16", "--out", tmp_path)
    assert run(*command).returncode == 0
    first = run(*command, "--split-max-size", "100K")
    assert first.returncode == 0, first.stderr
    (folder,) = tmp_path.glob("*/gguf/f16-split-100K")
    assert len(list(folder.glob("*-of-00004.gguf"))) == 4
    assert len(list((folder.parent / "f16").glob("*.gguf"))) == 1
    assert "reused" in run(*command, "--split-max-size", "100k").stdout
    refused = run(*command, "--split-max-size", "100X")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


def test_splits_are_read_as_the_one_model_that_they_are(
    whole: Artifact, checkpoint: Path, tmp_path: Path
) -> None:
    parts = export_tiny(checkpoint, "gguf", "f16", tmp_path, split_max_size="60K").files(".gguf")
    expected, found = (
        open_checkpoint(resolve(str(p)).path) for p in (whole.file(".gguf"), parts[0])
    )
    assert resolve(str(parts[2])) == resolve(str(parts[0]))
    assert "-of-" not in resolve(str(parts[0])).label
    for one, other in zip(expected.input_files, found.input_files, strict=True):
        assert one.read_bytes() == other.read_bytes()


def swapped(parts: list[Path]) -> None:
    third = parts[2].read_bytes()
    parts[2].write_bytes(parts[1].read_bytes())
    parts[1].write_bytes(third)


def without_one(parts: list[Path]) -> None:
    parts[1].unlink()


def doubled(parts: list[Path]) -> None:
    data = parts[1].read_bytes()
    place = data.index(b"split.no") + len("split.no") + 4
    parts[2].write_bytes(data[:place] + (2).to_bytes(2, "little") + data[place + 2 :])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (swapped, "it says that it is split 3 of"),
        (without_one, "-00002-of-00007.gguf: this split is missing"),
        (doubled, "is in another split too"),
    ],
)
def test_damaged_splits_are_refused_in_one_line(
    checkpoint: Path, tmp_path: Path, damage: Callable[[list[Path]], None], message: str
) -> None:
    parts = export_tiny(checkpoint, "gguf", "f16", tmp_path, split_max_size="60K").files(".gguf")
    damage(parts)
    with pytest.raises(InputError, match=message) as caught:
        resolve(str(parts[0]))
    assert "\n" not in str(caught.value)
