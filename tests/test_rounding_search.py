"""The method `search`: no worse than the runtime's own quantiser, and the same in all formats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproof.errors import InputError
from export.command import format_command
from export.formats import load_format
from export.gguf.storage import FIVE_BITS, FIVE_BITS_UP, FOUR_BITS, FOUR_BITS_UP
from export.mlc.schemes import SCHEMES
from export.onnx import bnb4
from export.onnx.schemes import BLOCKS
from export.rounding import BlockAxis, Evidence, Grid, Kind, Rounded
from export.rounding.cast import FLOAT16, FLOAT32
from export.rounding.nearest import Nearest
from export.rounding.search import MOST_BITS, Search, affine
from export.rounding.search.blocks import Blocks
from export.rounding.search.book import book_of
from runtimes.formats import dequantise
from tests.exported import export_tiny
from tests.test_rounding_methods import GGUF, GRIDS, columns_for
from tests.test_toy_rounding import FORMATS, IDS, write_matrix
from tests.tiny import make_checkpoint

pytestmark = pytest.mark.numbers

SEARCHED = {name: grid for name, grid in GRIDS.items() if grid.bits <= MOST_BITS}
searched = pytest.mark.parametrize("grid", SEARCHED.values(), ids=SEARCHED)
MIRRORED = {
    "GGUF": FOUR_BITS,
    "ONNX": BLOCKS["q4"].grid(FLOAT16),
    "MLC": SCHEMES["q4f16_1"].grid,
}


def stored_values(rounded: Rounded, grid: Grid, shape: tuple[int, int]) -> np.ndarray:
    """What a runtime would read, float64 [rows, columns]."""
    codes, scales = rounded.codes.astype(np.float64), rounded.scales.astype(np.float64)
    if grid.kind is Kind.CODEBOOK:
        codes = np.array(grid.levels)[rounded.codes]
    elif grid.kind is Kind.ZERO_POINT:
        codes -= rounded.offsets
    else:
        codes -= grid.zero
    values = codes * scales
    if grid.kind is Kind.MINIMUM:
        values += rounded.offsets.astype(np.float64)
    lines = 1 if grid.axis is BlockAxis.FLAT else shape[0]
    return values.T.reshape(lines, -1)[:, : shape[0] * shape[1] // lines].reshape(shape)


def block_errors(
    rounded: Rounded, grid: Grid, weights: np.ndarray, importance: np.ndarray
) -> np.ndarray:
    """The weighted squared error of each block, in float64."""
    values = stored_values(rounded, grid, weights.shape)
    return block_sums(np.square(values - weights) * importance, grid)


def block_sums(terms: np.ndarray, grid: Grid) -> np.ndarray:
    lines = terms.reshape(1, -1) if grid.axis is BlockAxis.FLAT else terms
    padded = np.pad(lines, ((0, 0), (0, -lines.shape[1] % grid.block)))
    return padded.reshape(-1, grid.block).sum(axis=1)


@st.composite
def weights_of(draw: st.DrawFn, grid: Grid) -> np.ndarray:
    """Rows [n, in] of the model's dtype: bells, few whole numbers (ties), zeros, outliers, tiny."""
    columns = columns_for(grid, draw(st.integers(1, 150)))
    shape = (draw(st.integers(1, 6)), columns)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.standard_normal(shape)
    if draw(st.booleans()):
        values = np.rint(values * draw(st.sampled_from([1, 4])))
    values[rng.random(shape) < draw(st.sampled_from([0, 0.3, 1]))] = 0
    values[rng.random(shape) < draw(st.sampled_from([0, 0.02]))] *= 50
    # 1e-7 and 1e-9: float16 scales are subnormal, or vanish; without zero, all of one sign.
    values *= draw(st.sampled_from([1.0, 0.01, 1e-5, 1e-7, 1e-9]))
    values = np.abs(values) + draw(st.sampled_from([0, 2])) if draw(st.booleans()) else values
    dtype = FLOAT16 if grid.scale_dtype == FLOAT16 and grid not in GGUF else FLOAT32
    return values.astype(dtype)


@pytest.mark.parametrize("grid", [FOUR_BITS_UP, FIVE_BITS_UP], ids=["Q4_1", "Q5_1"])
@settings(max_examples=60, deadline=None)
@given(st.data(), st.booleans())
def test_it_begins_with_what_nearest_stores_without_rounding_to_it(
    grid: Grid, data: st.DataObject, measured: bool
) -> None:
    weights = data.draw(weights_of(grid))
    draw = np.random.default_rng(weights.size)
    importance = draw.lognormal(0, 2, weights.shape[1]).astype(np.float32) if measured else None
    evidence = Evidence("w", importance)
    found = Search().round(weights, grid, evidence)
    nearest = Nearest().round(weights, grid, evidence)
    expected = affine.search(Blocks.of(weights, grid, evidence), grid, nearest)
    for name, part in vars(expected).items():
        assert getattr(found, name).tobytes() == part.tobytes(), name


@searched
@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(0, 2**32 - 1))
def test_no_block_gets_worse(grid: Grid, data: st.DataObject, seed: int) -> None:
    weights = data.draw(weights_of(grid))
    rng = np.random.default_rng(seed)
    measured = rng.lognormal(0, 2, weights.shape[1]).astype(np.float32)
    measured[rng.random(measured.size) < 0.2] = 0
    wide = weights.astype(np.float64)
    for importance in (None, measured):
        evidence = Evidence("w", importance)
        own = np.ones(weights.shape[1]) if importance is None else importance.astype(np.float64)
        before = block_errors(Nearest().round(weights, grid, evidence), grid, wide, own)
        rounded = Search().round(weights, grid, evidence)
        after = block_errors(rounded, grid, wide, own)
        # What float32 loses of an error, and of a product beside which the error is nothing.
        slack = 1e-5 * before + 1e-12 * block_sums(np.square(wide) * own, grid)
        assert (after <= slack + before).all()


@searched
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_it_depends_on_nothing_but_the_block(grid: Grid, data: st.DataObject) -> None:
    weights = data.draw(weights_of(grid))
    if grid.axis is BlockAxis.FLAT:
        weights = np.pad(weights, ((0, 0), (0, -weights.shape[1] % grid.block)))
    order = np.random.default_rng(0).permutation(len(weights))
    first, again, moved = (
        Search().round(rows, grid, Evidence("w")) for rows in (weights, weights, weights[order])
    )
    for part in ("codes", "scales", "offsets"):
        np.testing.assert_array_equal(getattr(first, part), getattr(again, part))
    shape = (weights.shape[0], weights.shape[1])
    expected = stored_values(first, grid, shape)[order]
    np.testing.assert_array_equal(stored_values(moved, grid, shape), expected)


@settings(max_examples=60, deadline=None)
@given(weights_of(MIRRORED["MLC"]), st.booleans(), st.integers(0, 2**32 - 1))
def test_one_grid_gets_one_set_of_values_in_all_formats(
    weights: np.ndarray, weighted: bool, seed: int
) -> None:
    weights = np.pad(weights, ((0, 0), (0, -weights.shape[1] % 32)))  # GGUF: whole blocks
    importance = np.random.default_rng(seed).random(weights.shape[1], np.float32)
    evidence = Evidence("w", importance if weighted else None)
    gguf, onnx, mlc = (Search().round(weights, grid, evidence) for grid in MIRRORED.values())
    np.testing.assert_array_equal(gguf.codes, onnx.codes)
    np.testing.assert_array_equal(gguf.scales, onnx.scales)
    np.testing.assert_array_equal(15 - gguf.codes, mlc.codes)
    np.testing.assert_array_equal(-gguf.scales, mlc.scales)


@pytest.mark.parametrize(
    ("name", "most"), [("Q4_0", 0.91), ("Q4_1", 0.93), ("q4-asymmetric float16", 0.94),
                       ("Q5_0", 0.92), ("bnb4", 0.85), ("q4f16_1", 0.7)]
)  # fmt: skip
def test_it_gains(name: str, most: float) -> None:
    """Squared error of a bell beside the nearest codes'; more where channels matter unlike."""
    grid, rng = GRIDS[name], np.random.default_rng(0)
    weights = rng.standard_normal((60, 960)).astype(np.float16)
    importance = rng.lognormal(0, 2, 960).astype(np.float32)
    for weighing, limit in ((None, most), (importance, most - 0.2)):
        evidence = Evidence("w", weighing)
        own = np.ones(960) if weighing is None else weighing.astype(np.float64)
        wide = weights.astype(np.float64)
        errors = [
            block_errors(method.round(weights, grid, evidence), grid, wide, own).sum()
            for method in (Nearest(), Search())
        ]
        assert errors[1] < limit * errors[0]


def test_a_better_power_of_two_is_found() -> None:
    grid, rng = GRIDS["mlx mxfp4"], np.random.default_rng(0)
    weights = rng.standard_normal((60, 960)).astype(np.float32)
    nearest, found = (
        block_errors(method.round(weights, grid, Evidence("w")), grid, weights, np.ones(960)).sum()
        for method in (Nearest(), Search())
    )
    assert found < 0.95 * nearest


@pytest.mark.parametrize("grid", MIRRORED.values(), ids=MIRRORED)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_block_on_the_grid_with_either_end_is_exact(grid: Grid, sign: int) -> None:
    levels = np.random.default_rng(0).integers(-7, 8, (40, 64)).astype(np.float32)
    levels[:20, ::32], levels[20:, ::32] = 7, -8
    weights = (levels * sign * np.float32(0.0137).astype(FLOAT16)).astype(FLOAT16)
    exact = Search().round(weights.astype(np.float32), grid, Evidence("w"))
    products = levels * sign * np.float64(np.float16(0.0137))
    found = stored_values(exact, grid, weights.shape)
    assert np.abs(found - products).max() < 1e-4 * np.abs(products).max()


def test_dead_channels_count_alike_where_all_of_a_block_are() -> None:
    weights = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    alike, dead = np.ones(64, np.float32), np.ones(64, np.float32)
    dead[:32] = 0
    rounded, expected = (
        Search().round(weights, FOUR_BITS, Evidence("w", importance))
        for importance in (dead, alike)
    )
    np.testing.assert_array_equal(rounded.codes, expected.codes)


def test_a_channel_that_matters_most_is_almost_exact() -> None:
    weights = np.random.default_rng(0).standard_normal((200, 32)).astype(np.float32)
    importance = np.full(32, 1e-6, np.float32)
    importance[5] = 1
    values = stored_values(
        Search().round(weights, FOUR_BITS, Evidence("w", importance)), FOUR_BITS, weights.shape
    )
    assert np.median(np.abs(values - weights)[:, 5] / np.abs(weights)[:, 5]) < 1e-3


@pytest.mark.parametrize("grid", [FOUR_BITS, FIVE_BITS, MIRRORED["MLC"]])
def test_what_does_not_fit_a_scale_is_refused(grid: Grid) -> None:
    weights = np.full((1, 64), 3e6, np.float32)
    with pytest.raises(InputError, match="w, scale or minimum of a block: its largest value"):
        Search().round(weights, grid, Evidence("w"))


def test_more_bits_are_rounded_as_by_nearest() -> None:
    weights = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    for name in GRIDS.keys() - SEARCHED.keys():
        for part in ("codes", "scales", "offsets"):
            found, usual = (
                getattr(method.round(weights, GRIDS[name], Evidence("w")), part)
                for method in (Search(), Nearest())
            )
            np.testing.assert_array_equal(found, usual)


@pytest.mark.parametrize(
    "levels",
    [bnb4.LEVELS, (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)],
    ids=["NF4", "IQ4_NL"],
)
def test_a_codebooks_level_is_the_nearest(levels: tuple[float, ...]) -> None:
    book = book_of(replace(bnb4.GRID, levels=levels))
    known = np.array(levels, np.float32)
    span = np.linspace(1.2 * known[0], 1.2 * known[-1], 10_001, dtype=np.float32)
    near = np.concatenate([(known[1:] + known[:-1]) / 2, known, span]).astype(np.float32)
    quotients = np.concatenate([near, np.nextafter(near, np.inf), np.nextafter(near, -np.inf)])
    distances = np.abs(quotients - known[:, None].astype(np.float64))
    found = book.nearest(quotients[:, None].copy())[:, 0]
    chosen = np.abs(quotients.astype(np.float64) - found)
    np.testing.assert_allclose(chosen, distances.min(axis=0), atol=1e-7 * np.abs(known).max())
    np.testing.assert_array_equal(known[book.codes(found)], found)


def run(form: str, *arguments: str | Path) -> tuple[int, str]:
    """The format's own command."""
    command = format_command(load_format(form))
    result = CliRunner().invoke(command, list(map(str, arguments)), catch_exceptions=False)
    return result.exit_code, result.output


@pytest.mark.parametrize(("form", "dtype"), FORMATS, ids=IDS)
def test_every_format_takes_it_with_and_without_a_matrix(
    tmp_path: Path, form: str, dtype: str
) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", dtype="F16")
    write_matrix(tmp_path / "i.gguf")
    options: dict[str, dict[str, Any]] = {
        "nearest": {},
        "search": {"rounding": "search"},
        "search-imatrix": {"rounding": "search", "imatrix": tmp_path / "i.gguf"},
    }
    made = {name: export_tiny(folder, form, dtype, tmp_path, **o) for name, o in options.items()}
    assert [item.manifest.variant.name for item in made.values()] == [
        dtype, f"{dtype}-search", f"{dtype}-search-imatrix"
    ]  # fmt: skip
    exact = dequantise(export_tiny(folder, "gguf", "f32", tmp_path))
    tensor = "model.layers.1.mlp.down_proj.weight"
    errors = [np.square(dequantise(item)[tensor] - exact[tensor]).sum() for item in made.values()]
    assert errors[1] < errors[0]
    assert errors[1] < errors[2]
    sizes = {item.manifest.weights["effective_bpw"] for item in made.values()}
    assert len(sizes) == 1


@pytest.mark.parametrize("form", ["onnx", "mlc"])
def test_a_matrix_without_a_file_does_not_take_the_next_option(tmp_path: Path, form: str) -> None:
    dtype = dict(FORMATS)[form]
    model = ("-o", tmp_path / "out", "-d", dtype, "--imatrix", "--rounding", "search")
    code, output = run(form, *model)
    assert (code, output.count("\n")) == (2, 1)
    assert "--imatrix: it takes a file here; `python -m runtimes.imatrix` makes one" in output
