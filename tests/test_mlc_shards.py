"""Shards are cut, numbered and described as TVM's own writer does it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeproof.artifact import ArtifactWriter, ModelIdentity, Precision, Recipe, Variant
from export.mlc.shards import ShardFiles, StoredArray, plan_shards, write_index
from export.rounding.cast import BFLOAT16

IDENTITY = ModelIdentity("m", None, None, 1000, ())
VARIANT = Variant("mlc", "q0f16", Precision.FP16, Recipe())
CAP = 100


def planned(*sizes: int) -> list[tuple[int, list[int]]]:
    """(bytes, sizes of the arrays) of each shard, for arrays of these byte counts."""
    arrays = [
        StoredArray(str(i), (size // 2,), np.dtype(np.float16)) for i, size in enumerate(sizes)
    ]
    return [(s.nbytes, [a.nbytes for a in s.arrays]) for s in plan_shards(arrays, CAP)]


def test_arrays_share_a_shard_until_the_next_one_would_reach_the_cap() -> None:
    assert planned(40, 40, 18) == [(98, [40, 40, 18])]
    assert planned(40, 40, 20) == [(80, [40, 40]), (20, [20])]


def test_half_the_cap_goes_alone_and_leaves_the_open_shard_open() -> None:
    # The large arrays close first, so they get the first numbers.
    assert planned(60, 50, 20, 90, 16) == [(50, [50]), (90, [90]), (96, [60, 20, 16])]


def test_an_array_larger_than_the_cap_is_one_shard() -> None:
    assert planned(400) == [(400, [400])]


def some_arrays(sizes: list[int], dtypes: list[str]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        f"tensor.{i}": (100 * rng.standard_normal((size, 3))).astype(dtype)
        for i, (size, dtype) in enumerate(zip(sizes, dtypes, strict=False))
    }


def dump(values: dict[str, np.ndarray], folder: Path, cap: int, *, raw: bool = False) -> None:
    """Write arrays with the code under test, in pieces of one row."""
    arrays = [StoredArray(name, value.shape, value.dtype, raw) for name, value in values.items()]
    with ArtifactWriter.create(folder, IDENTITY, VARIANT, {}) as writer:
        with ShardFiles(writer, plan_shards(arrays, cap)) as files:
            for name, value in values.items():
                for row in value:
                    rounded = row.dtype == np.float32 and not raw
                    files.append(name, row.astype(BFLOAT16) if rounded else row)
            records = files.records()
        write_index(writer, arrays, records, IDENTITY.parameters)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("shards")


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sizes=st.lists(st.integers(1, 60_000), min_size=1, max_size=8),
    dtypes=st.lists(st.sampled_from(["float16", "uint32", "float32"]), min_size=8, max_size=8),
    raw=st.booleans(),
)
def test_files_and_index_are_byte_for_byte_those_of_tvm(
    folders: Path, sizes: list[int], dtypes: list[str], raw: bool
) -> None:
    tvmjs = pytest.importorskip("tvm.contrib.tvmjs")
    values = some_arrays(sizes, dtypes)
    ours, theirs = folders / "ours", folders / "theirs"
    dump(values, ours, cap=1 << 20, raw=raw)
    for old in theirs.glob("*"):
        old.unlink()
    loaded = sum(value.nbytes for value in values.values())
    metadata = {
        "ParamSize": len(values),
        "ParamBytes": float(loaded),
        "BitsPerParam": loaded * 8.0 / IDENTITY.parameters,
    }
    tvmjs.dump_tensor_cache(
        values,
        str(theirs),
        encode_format="raw" if raw else "f32-to-bf16",
        meta_data=metadata,
        shard_cap_mb=1,
        show_progress=False,
    )
    names = {path.name for path in theirs.glob("*")}
    assert {path.name for path in ours.glob("*")} == {
        *names,
        "edgeproof.json",
        "ndarray-cache.json",
    }
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    assert (ours / "ndarray-cache.json").read_bytes() == (ours / "tensor-cache.json").read_bytes()


def test_an_error_between_two_arrays_leaves_nothing(tmp_path: Path) -> None:
    values = some_arrays([10, 10], ["float16", "float16"])
    arrays = [StoredArray(name, value.shape, value.dtype) for name, value in values.items()]

    def interrupted() -> None:
        with (
            ArtifactWriter.create(tmp_path / "m", IDENTITY, VARIANT, {}) as writer,
            ShardFiles(writer, plan_shards(arrays)) as files,
        ):
            files.append("tensor.0", values["tensor.0"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_the_index_is_json_that_older_loaders_know(tmp_path: Path) -> None:
    values = some_arrays([4], ["float32"])
    dump(values, tmp_path / "m", cap=CAP)
    index = json.loads((tmp_path / "m" / "ndarray-cache.json").read_text())
    (shard,) = index["records"]
    assert shard["format"] == "raw-shard"
    assert shard["records"] == [
        {
            "name": "tensor.0",
            "shape": [4, 3],
            "dtype": "float32",
            "format": "f32-to-bf16",
            "nbytes": 24,
            "byteOffset": 0,
        }
    ]
