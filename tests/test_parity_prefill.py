"""One pass against steps: exact runtimes agree, a cache that loses its place does not."""

from __future__ import annotations

import numpy as np
import pytest

from runtimes.parity.prefill import CACHE_KL_LIMIT, READ, STEPS, logits_from, stepwise_kl
from runtimes.parity.suite import Document
from runtimes.pytorch import TorchRuntime
from runtimes.registry import open_reference
from tests.tiny import VOCAB, make_checkpoint
from tests.tolerance import REORDERED_KL

pytestmark = pytest.mark.numbers


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> TorchRuntime:
    return open_reference(make_checkpoint(tmp_path_factory.mktemp("prefill") / "tiny"), 1)


def texts(*lengths: int) -> list[Document]:
    rng = np.random.default_rng(0)
    ids = [tuple(rng.integers(0, VOCAB, length).tolist()) for length in lengths]
    return [Document(str(index), "text", item, 0) for index, item in enumerate(ids)]


@pytest.mark.parametrize("lengths", [(2,), (1, 17), (100,)])
def test_steps_agree_with_one_pass(runtime: TorchRuntime, lengths: tuple[int, ...]) -> None:
    found = stepwise_kl(runtime, texts(*lengths))
    assert found is not None
    assert abs(found) < REORDERED_KL


def test_single_tokens_have_no_steps(runtime: TorchRuntime) -> None:
    assert stepwise_kl(runtime, texts(1, 1)) is None


def test_a_cache_that_forgets_is_seen(
    runtime: TorchRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "step", lambda token: runtime.start([token]))
    found = stepwise_kl(runtime, texts(READ + STEPS))
    assert found is not None
    assert found > CACHE_KL_LIMIT


@pytest.mark.parametrize("first", [0, 3, 15, 16, 21])
def test_the_last_rows_are_those_of_the_whole_pass(
    runtime: TorchRuntime, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    monkeypatch.setattr(runtime, "chunk", 16)
    (text,) = texts(22)
    assert len(list(runtime.logit_blocks(text.ids))) == 2
    whole = runtime.logits(text.ids)
    # The head adds up in another order for another number of rows.
    np.testing.assert_allclose(logits_from(runtime, text.ids, first), whole[first:], atol=1e-4)
