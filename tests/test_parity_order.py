"""The order in which a text is read: every beginning of it stands for all of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.parity.order import reading_order
from runtimes.parity.suite import Budget, built_in


@given(st.lists(st.sampled_from("abcd"), max_size=80))
def test_every_beginning_of_the_reading_order_has_each_kind_in_its_share(kinds: list[str]) -> None:
    order = reading_order(kinds)
    assert sorted(order) == list(range(len(kinds)))
    names = set(kinds)
    for count in range(len(order) + 1):
        first = [kinds[index] for index in order[:count]]
        for name in names:
            share = kinds.count(name) / len(kinds)
            assert abs(first.count(name) - count * share) <= (len(names) + 1) / 2


@given(st.integers(1, 200), st.integers(1, 200))
def test_every_beginning_of_the_reading_order_is_from_all_over_a_file(total: int, n: int) -> None:
    places = sorted(reading_order(["text"] * total)[: min(n, total)])
    gaps = np.diff([-1, *places, total])
    assert gaps.max() <= 4 * math.ceil(total / len(places))


@pytest.mark.parametrize("budget", [Budget.FAST, Budget.DEFAULT])
def test_the_first_part_of_the_built_in_text_has_all_kinds(budget: Budget) -> None:
    prompts = built_in(budget).prompts
    assert {p.kind for p in prompts[:9]} == {p.kind for p in prompts}
