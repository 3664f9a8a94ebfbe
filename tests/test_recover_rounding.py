"""Rounding by the moment of the inputs: better than nearest on it, and on what it cannot see."""

from __future__ import annotations

import pytest
import torch

from edgeproof.errors import InputError
from edgeproof.families import read_config
from runtimes.recover.allocate import allocated, predicted_loss
from runtimes.recover.gate import Measured, smallest
from runtimes.recover.grids import GRIDS, Grid
from runtimes.recover.progress import INTERVAL, Progress
from runtimes.recover.rounding import damped, plainly_rounded, round_matrix
from runtimes.recover.scales import (
    PIECE,
    nonzero,
    row_errors,
    searched_scales,
    solved_scales,
    spread,
)
from runtimes.recover.sizes import stored_bits
from runtimes.recover.targets import TARGETS
from tests.tiny import config

EVERY_GRID = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


def matrix(rows: int = 48, width: int = 96, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights, and the moment of correlated inputs."""
    draw = torch.Generator().manual_seed(seed)
    weights = torch.randn(rows, width, generator=draw)
    inputs = torch.randn(400, 24, generator=draw) @ torch.randn(24, width, generator=draw)
    inputs += 0.3 * torch.randn(400, width, generator=draw)
    return weights, inputs.T @ inputs / 400


@EVERY_GRID
def test_the_error_is_below_that_of_rounding_each_block_by_itself(grid: Grid) -> None:
    weights, moment = matrix()
    rounded = round_matrix(weights, moment, grid)
    plain = plainly_rounded(weights, torch.ones(weights.shape[1]), grid)
    searched = plainly_rounded(weights, moment.diagonal(), grid)
    ours, nearest, better = (
        float(row_errors(weights, values, damped(moment)).sum())
        for values in (rounded.values, plain, searched)
    )
    assert ours < 0.6 * min(nearest, better)


@EVERY_GRID
def test_levels_are_the_grids(grid: Grid) -> None:
    weights, moment = matrix()
    levels = round_matrix(weights, moment, grid).levels.float()
    assert torch.equal(grid.nearest(levels), levels)


@EVERY_GRID
def test_a_blocks_scale_does_not_depend_on_how_many_are_searched_with_it(grid: Grid) -> None:
    draw = torch.Generator().manual_seed(0)
    blocks = torch.randn(PIECE + 40, 32, generator=draw)
    importance = torch.rand(PIECE + 40, 32, generator=draw)
    together = searched_scales(blocks, importance, grid)
    for part in (slice(0, 7), slice(PIECE - 5, PIECE + 5), slice(PIECE + 39, None)):
        alone = searched_scales(blocks[part], importance[part], grid)
        assert torch.equal(alone, together[part])


@EVERY_GRID
def test_solved_scales_are_float16_and_never_worse(grid: Grid) -> None:
    weights, moment = matrix()
    weights[3] = 0
    scales = searched_scales(weights.reshape(-1, 32), torch.ones(1, 32), grid).view(
        len(weights), -1
    )
    levels = grid.nearest(weights / spread(torch.ones_like(weights), nonzero(scales)))
    solved = solved_scales(weights, moment, levels, scales)
    assert torch.equal(solved, solved.half().float())
    before = row_errors(weights, spread(levels, scales), moment)
    after = row_errors(weights, spread(levels, solved), moment)
    assert (after <= before).all()
    assert after.sum() < before.sum()


@EVERY_GRID
def test_zeros_dead_inputs_and_tiny_values_are_rounded_too(grid: Grid) -> None:
    weights, moment = matrix()
    weights[9] = 0
    weights[5] *= 1e-9  # a scale that underflows float16
    moment[:, 7] = moment[7] = 0
    rounded = round_matrix(weights, moment, grid).values
    assert torch.isfinite(rounded).all()
    assert not rounded[[5, 9]].any()
    assert torch.isfinite(round_matrix(weights, torch.zeros_like(moment), grid).values).all()


def test_a_scale_beyond_float16_is_refused() -> None:
    weights, moment = matrix()
    with pytest.raises(InputError, match="too large for a float16 scale"):
        round_matrix(weights * 1e7, moment, GRIDS["q4"])


def test_bits_go_where_they_buy_most_and_never_beyond_the_size() -> None:
    _, parameters = read_config(config())
    matrices = [p for p in parameters if len(p.shape) == 2]
    errors = {p.name: 0.001 for p in matrices}
    errors[matrices[3].name] = 1.0
    target, count = TARGETS["gguf"], sum(p.size for p in parameters)
    losses = []
    for bits in (4.8, 5.2, 6.0, 8.0, 20.0):
        grids = allocated(target, parameters, errors, bits * count)
        assert stored_bits(target, parameters, grids) <= bits * count
        losses.append(predicted_loss(parameters, errors, grids))
        assert grids[matrices[3].name] == "q8"
    assert losses == sorted(losses, reverse=True)
    assert set(grids.values()) == {"q8"}


@pytest.mark.parametrize("factor", [0.2, 0.6, 1.5])
def test_the_smallest_size_is_found_in_few_measurements(factor: float) -> None:
    """Whatever the model's own relation of predicted loss to lost tokens is."""
    asked: list[float] = []

    def predicted(bits: float) -> float:
        return float(2.0 ** (-2 * bits) * 10)

    def measured(bits: float) -> Measured:
        asked.append(bits)
        lost = factor * predicted(bits) ** 0.5
        return Measured(lost <= 0.07, lost)

    found = smallest(4.5, 8.5, 0.07, predicted, measured)
    assert measured(found).passes
    assert found == pytest.approx(4.5) or not measured(found - 0.2).passes
    assert len(asked) <= 8


def test_the_time_left_follows_from_what_was_done() -> None:
    now, said = [0.0], []
    progress = Progress(said.append, lambda: now[0])
    progress.plan(300)
    progress.skip(100)
    progress.advance(1, "measuring")
    now[0] = INTERVAL * 10
    progress.advance(49, "measuring")
    assert said == ["measuring, about 8 min left"]
