"""What several documents begin with is one sample: figures and intervals count it once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from runtimes.parity.divergence import PositionMetrics, compare
from runtimes.parity.positions import worst_positions
from runtimes.parity.repeats import counted_once, positions, repeated
from runtimes.parity.statistics import mean_kl_by_kind, summarise
from runtimes.parity.suite import Document

VOCAB = 50
SYSTEM = (1, 7, 7, 3, 9)


def document(*ids: int, name: str = "a") -> Document:
    return Document(name, "chat", ids, 0)


def metrics(read: Document, error: float = 0.3) -> PositionMetrics:
    """Logits at each position that follow from the tokens up to it, as a decoder's do."""
    seeds = [abs(hash(read.ids[: end + 1])) for end in range(len(read.ids))]
    rows = np.array([np.random.default_rng(s).normal(0, 3, (2, VOCAB)) for s in seeds])
    return compare(rows[:, 0], rows[:, 0] + error * rows[:, 1], read.ids)


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=6))
def test_what_is_repeated_is_the_longest_beginning_that_an_earlier_document_has(
    texts: list[list[int]],
) -> None:
    documents = [document(*ids) for ids in texts]
    seen: set[tuple[int, ...]] = set()
    for read, count in zip(documents, repeated(documents), strict=True):
        prefixes = [read.ids[:end] for end in range(1, len(read.ids) + 1)]
        assert count == sum(prefix in seen for prefix in prefixes)
        seen.update(prefixes)
    assert positions(documents) == len(seen)


def test_a_system_prompt_counts_in_the_first_chat_only() -> None:
    chats = [document(*SYSTEM, 10 + chat, 20, 30) for chat in range(4)]
    found = counted_once(chats, [metrics(chat) for chat in chats])
    assert [len(part.kl) for part in found] == [8, 3, 3, 3]
    assert np.array_equal(found[2].kl, metrics(chats[2]).kl[5:])
    assert positions(chats) == 8 + 3 * 3


def test_documents_that_bring_nothing_new_change_no_figure_and_no_interval() -> None:
    texts = [document(*SYSTEM, 10 + chat, *range(chat, 30)) for chat in range(6)]
    again = [*texts, document(*SYSTEM), *texts]
    once, twice = (
        summarise(counted_once(read, [metrics(item) for item in read])) for read in (texts, again)
    )
    assert once == twice
    kinds = ["chat"] * 6 + ["prompt"] * 7
    found = mean_kl_by_kind(kinds, counted_once(again, [metrics(item) for item in again]))
    assert [*found] == ["chat"]
    assert found["chat"] == once["mean_kl"].value


def test_a_shared_prompt_does_not_pass_for_agreement() -> None:
    """Chats that are all wrong after a long system prompt are mostly wrong."""
    system = range(1, 41)
    chats = [document(*system, 45, chat) for chat in range(10)]
    right = np.eye(1, VOCAB).repeat(42, 0)
    wrong = np.concatenate([right[:40], np.eye(2, VOCAB)[1:].repeat(2, 0)])
    found = [compare(right, wrong, chat.ids) for chat in chats]
    assert summarise(found)["top1"].value > 0.95
    assert summarise(counted_once(chats, found))["top1"].value == 40 / (41 + 10)


def test_the_worst_position_of_a_shared_prompt_is_named_once() -> None:
    chats = [document(*SYSTEM, 10 + chat, name=str(chat)) for chat in range(3)]
    found = [metrics(chat) for chat in chats]
    worst = worst_positions(chats, found, lambda ids: " ".join(map(str, ids)))
    assert len(worst) == 6 + 1 + 1
    shared = [item for item in worst if item.position < len(SYSTEM)]
    assert {item.document for item in shared} == {"0"}
