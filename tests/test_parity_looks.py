"""Looks at growing parts of a text: what may stop early, and what all of it then says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.parity.divergence import PositionMetrics, compare
from runtimes.parity.gates import Gate
from runtimes.parity.intervals import LEVEL, Estimate
from runtimes.parity.looks import (
    EARLY,
    FIRST_DOCUMENTS,
    FIRST_POSITIONS,
    LARGEST_PART,
    Looks,
    parts,
)
from runtimes.parity.repeats import reached
from runtimes.parity.statistics import summarise
from runtimes.parity.suite import Document
from runtimes.parity.verdict import judge

pytestmark = pytest.mark.numbers

VOCAB = 50
KL = Gate("mean_kl", 0.05, "test")
CLEAR = Gate("clear_top1", 0.97, "test", at_least=True)


def texts(lengths: Sequence[int]) -> list[Document]:
    return [
        Document(f"d{index}", "text", tuple(range(1000 * index, 1000 * index + length)), 0)
        for index, length in enumerate(lengths)
    ]


@given(st.lists(st.integers(1, 900), min_size=1, max_size=120))
def test_parts_grow_to_the_whole_and_leave_out_5_per_cent_together(lengths: list[int]) -> None:
    positions = np.cumsum(lengths)
    found = parts(positions, whole_text=False)
    *early, last = found
    assert last.documents == len(lengths)
    assert [part.documents for part in found] == sorted({part.documents for part in found})
    assert sum(1 - part.level for part in found) == pytest.approx(1 - LEVEL)
    assert last.level <= LEVEL + EARLY
    for part in early:
        assert part.documents >= FIRST_DOCUMENTS
        assert FIRST_POSITIONS <= positions[part.documents - 1] <= LARGEST_PART * positions[-1]
    (only,) = parts(positions, whole_text=True)
    assert (only.documents, only.level) == (len(lengths), LEVEL)


def test_the_default_texts_size_has_three_looks() -> None:
    looks = parts(reached(texts([88] * 58)), whole_text=False)
    assert [part.documents for part in looks] == [8, 19, 58]


def export(damage: float, count: int = 58, rows: int = 88) -> list[PositionMetrics]:
    """What an export gives on `count` documents, the farther from the reference the more damage."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(count):
        p = 2 * rng.normal(size=(rows, VOCAB))
        q = p + damage * rng.uniform(0.7, 1.3) * rng.normal(size=p.shape)
        found.append(compare(p, q, rng.integers(0, VOCAB, rows).tolist()))
    return found


def read(
    metrics: Sequence[PositionMetrics], gates: Sequence[Gate], failures: Sequence[str] = ()
) -> Looks:
    """Read an export's documents until that is enough, as `replay` does."""
    documents = texts([len(part.kl) for part in metrics])

    def settled(found: dict[str, Estimate], faults: Sequence[str]) -> bool:
        return judge(found, None, gates, faults).settled

    looks = Looks(documents, parts(reached(documents), whole_text=False), settled)
    for count in range(1, len(documents) + 1):
        if looks.enough(metrics[:count], failures):
            break
    return looks


def test_gross_damage_is_decided_by_the_first_part_and_all_estimates_are_of_it() -> None:
    found = export(1.5)
    looks = read(found, [KL, CLEAR])
    (look,) = looks.looks
    assert (look.documents, look.positions) == (8, 8 * 88)
    assert looks.estimates == summarise(found[:8], look.level)
    assert looks.estimates["mean_kl"].positions == 8 * 88
    assert look.mean_kl == looks.estimates["mean_kl"].value > 4 * KL.limit


def test_a_pass_and_what_is_near_a_gate_read_the_whole_text() -> None:
    for damage in (0.01, 0.3):
        looks = read(export(damage), [KL, CLEAR])
        assert [look.documents for look in looks.looks] == [8, 19, 58]
    near = looks.estimates["mean_kl"]
    assert 0.5 * KL.limit < near.value < 2 * KL.limit


def test_one_gate_that_is_open_is_read_on_for_though_another_is_missed() -> None:
    found = export(1.5)
    limit = summarise(found)["clear_top1"].value
    looks = read(found, [KL, replace(CLEAR, limit=limit)])
    assert looks.looks[-1].documents == 58


def test_a_flip_where_none_may_be_is_decided_and_none_yet_is_not() -> None:
    counted = replace(CLEAR, limit=1.0, counted=1_000)
    assert len(read(export(1.5), [KL, counted]).looks) == 1
    assert len(read(export(0.01), [replace(KL, limit=1e-9), counted]).looks) > 1


def test_a_hard_fault_is_not_read_on_for() -> None:
    assert len(read(export(0.01), [KL], ["tokens differ"]).looks) == 1


def test_an_early_look_has_wider_intervals_and_the_last_one_hardly() -> None:
    found = export(0.5)
    early, last, alone = (
        summarise(found, level) for level in (1 - EARLY / 2, LEVEL + EARLY, LEVEL)
    )
    for metric in ("mean_kl", "top1", "acceptance"):
        wide, usual, narrow = (e[metric].high - e[metric].low for e in (early, last, alone))
        assert wide > 1.3 * narrow
        assert narrow <= usual < 1.1 * narrow
