"""The streaming safetensors writer against the reference library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from export.checkpoint.safetensors_file import SafetensorsFile
from export.checkpoint.safetensors_writer import PlannedTensor, write_safetensors
from tests.tiny import DTYPES

shapes = st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple)
plans = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
    st.tuples(shapes, st.sampled_from(sorted(DTYPES))),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plans, st.integers(1, 3))
def test_a_streamed_file_is_byte_for_byte_the_reference_librarys(
    tmp_path: Path, plan: dict[str, Any], rows: int
) -> None:
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.standard_normal(shape).astype(DTYPES[dtype])
        for name, (shape, dtype) in plan.items()
        if name != "__metadata__"
    }

    def blocks(name: str) -> Iterator[np.ndarray]:
        for start in range(0, len(tensors[name]), rows):
            yield tensors[name][start : start + rows]

    path = tmp_path / "model.safetensors"
    planned = [PlannedTensor(name, value.dtype, value.shape) for name, value in tensors.items()]
    write_safetensors(path, planned, blocks)
    assert path.read_bytes() == save(tensors, {"format": "pt"})
    read = SafetensorsFile(path)
    for name, value in tensors.items():
        assert read.entries[name].dtype == value.dtype
        assert read.tensor(name).tobytes() == value.tobytes()


@pytest.mark.parametrize(
    "block", [np.zeros(3, np.float32), np.zeros(5, np.float32), np.zeros(4, np.float16)]
)
def test_blocks_that_do_not_fit_the_plan_are_an_error(tmp_path: Path, block: np.ndarray) -> None:
    plan = [PlannedTensor("x", np.dtype(np.float32), (4,))]
    with pytest.raises(ValueError, match=r"x: .* due"):
        write_safetensors(tmp_path / "model.safetensors", plan, lambda _: iter([block]))
