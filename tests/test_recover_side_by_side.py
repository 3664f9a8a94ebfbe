"""Layers that are worked on at a time: the same results, and an end where one is wanted."""

from __future__ import annotations

import time
from functools import partial

import pytest
import torch

from runtimes.recover.grids import GRIDS
from runtimes.recover.rounding import round_matrix
from runtimes.recover.side_by_side import Check, side_by_side


def test_results_do_not_depend_on_how_many_are_worked_on() -> None:
    draw = torch.Generator().manual_seed(3)
    matrices = [torch.randn(40, 64, generator=draw) for _ in range(5)]
    moment = matrices[0].T @ matrices[0]

    def task(weights: torch.Tensor, check: Check) -> torch.Tensor:
        assert torch.get_num_threads() == 1
        return round_matrix(weights, moment, GRIDS["q4"], check).values

    tasks = [partial(task, weights) for weights in matrices]
    before = torch.get_num_threads()
    alone, together = (dict(side_by_side(tasks, count)) for count in (1, 3))
    assert torch.get_num_threads() == before
    assert alone.keys() == together.keys() == set(range(5))
    assert all(torch.equal(alone[number], together[number]) for number in alone)


def test_what_one_raises_ends_the_others() -> None:
    done: list[tuple[int, None]] = []

    def bad(check: Check) -> None:
        raise ValueError("bad")

    def endless(check: Check) -> None:
        while True:
            check()
            time.sleep(0.001)

    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="bad"):
        done.extend(side_by_side([endless, bad, endless, endless], 2))
    assert not done
    assert torch.get_num_threads() == before


def test_who_takes_no_more_results_ends_the_tasks() -> None:
    def endless(check: Check) -> None:
        while True:
            check()
            time.sleep(0.001)

    def begin() -> None:
        for _ in side_by_side([lambda check: None, endless], 2):
            raise SystemExit(130)

    with pytest.raises(SystemExit):
        begin()
