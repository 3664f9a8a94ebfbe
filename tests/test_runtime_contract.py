"""What `runtimes.protocol` promises, checked on every adapter and on the PyTorch reference.

Each (format, variant) is its own parameter, so that a broken adapter fails only its own tests.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from runtimes.protocol import ManyRuntime, MarkedTextRuntime, RewindingRuntime, Runtime
from runtimes.registry import open_reference, open_runtime
from tests.caches import new_cache
from tests.exported import export_tiny
from tests.tiny import VOCAB, make_checkpoint
from tests.tolerance import OTHER_RUNTIME, REORDERED_FLOAT32, ROUNDED, relative_error

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime

pytestmark = pytest.mark.numbers

THREADS = 2
CONTEXT = 1280
# Format, variant, and the further runtime, if it is not the format's usual one.
Case = tuple[str, ...]
# Greatest error of the logits against PyTorch: weights are rounded, and with GGUF f16/bf16 and MLC
# q0f16 activations too.
TOLERANCE: dict[Case, float] = {
    ("pytorch", "fp32"): 0.0,
    ("onnx", "fp32"): OTHER_RUNTIME,
    ("onnx", "fp16"): ROUNDED["float16"],
    ("gguf", "f32"): OTHER_RUNTIME,
    ("gguf", "f16"): ROUNDED["float16"],
    ("gguf", "bf16"): ROUNDED["bfloat16"],
    ("mlc", "q0f32"): ROUNDED["bfloat16"],
    ("mlc", "q0f16"): ROUNDED["float16"],
    ("onnx", "fp32", "openvino"): OTHER_RUNTIME,
    ("gguf", "q8_0", "openvino"): ROUNDED["int8"],
}
# Packages of runtimes that are not built for every system.
OPTIONAL = {"openvino": "openvino_genai"}
# Prefill and decode of one runtime may add in another order, at the precision of its arithmetic.
SELF_TOLERANCE = {case: max(limit, REORDERED_FLOAT32) for case, limit in TOLERANCE.items()}

WORDS = ["The capital of France is Paris", "counted 1, 2, 3.", "I'll we've DON'T", "naïve Größe"]
SPACES = ["", " ", "  ", "   ", "\t", "\n", "\n\n", " \n ", "\r\n", "\u00a0", "\u3000", "\u200b"]
NUMBERS = ["7", "42", "1999", "3.14159", "1,000,000", "0x1F", "-5e-3", "²³", "١٢٣", "Ⅷ", "½"]
CODE = ["def f(x):\n    return x**2\n", "a[i]+=b->c;//!", "<div class='x'>&amp;</div>", "\\n\\t\\0"]
UNICODE = ["東京", "привет", "مرحبا", "עברית", "ไทย", "e\u0301", "🙂", "👩\u200d👩\u200d👧", "🇩🇪"]
INVISIBLE = ["\ufeff", "\x00", "\x7f", "\u200d", "\u00ad"]
SPECIAL = [
    "<|im_start|>user\nHi<|im_end|>\n",
    "<|endoftext|>",
    " <|im_end|> ",
    "<|im_start|><|im_start|>",
    "<|im_start",
    "|im_end|>",
    "a<|im_end|>b",
]
PAIRS = [a + b for a, b in itertools.product(SPACES[1:8], [*NUMBERS[:4], "x", "🙂", "<|im_end|>"])]
TEXTS = [
    *WORDS,
    *SPACES,
    *NUMBERS,
    *CODE,
    *UNICODE,
    *INVISIBLE,
    *SPECIAL,
    *PAIRS,
    "in 1999,  42",
    "a" * 300,
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("contract")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROOF_CACHE", new_cache(folder))
        yield folder


@pytest.fixture(scope="module")
def checkpoint(root: Path) -> Path:
    return make_checkpoint(root / "checkpoint", max_position_embeddings=CONTEXT)


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Iterator[TorchRuntime]:
    runtime = open_reference(checkpoint, THREADS)
    yield runtime
    runtime.close()


@pytest.fixture(scope="module", params=TOLERANCE, ids="-".join)
def case(request: pytest.FixtureRequest) -> Case:
    chosen: Case = request.param
    for other in chosen[2:]:
        pytest.importorskip(OPTIONAL[other], reason=f'pip install "edgeproof[{other}]"')
    return chosen


def open_case(case: Case, checkpoint: Path, root: Path) -> Runtime:
    form, variant, *other = case
    if form == "pytorch":
        return open_reference(checkpoint, THREADS)
    return open_runtime(export_tiny(checkpoint, form, variant, root), THREADS, *other)


@pytest.fixture(scope="module")
def runtime(case: Case, checkpoint: Path, root: Path) -> Iterator[Runtime]:
    opened = open_case(case, checkpoint, root)
    yield opened
    opened.close()


def tokens(count: int, seed: int = 0) -> list[int]:
    """Random ids."""
    return np.random.default_rng(seed).integers(0, VOCAB, count).tolist()


def test_it_says_what_it_is(runtime: Runtime) -> None:
    assert all(isinstance(x, str) and x for x in (runtime.name, runtime.version, runtime.device))


def test_logits_are_float32_at_every_position(runtime: Runtime) -> None:
    logits = runtime.logits(tokens(9))
    assert logits.shape == (9, VOCAB)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


def test_text_becomes_the_ids_of_the_reference(runtime: Runtime, reference: TorchRuntime) -> None:
    assert len(TEXTS) > 100
    wrong = [text for text in TEXTS if runtime.tokenize(text) != reference.tokenize(text)]
    assert wrong == []


def test_logits_are_those_of_pytorch(runtime: Runtime, reference: TorchRuntime, case: Case) -> None:
    ids = tokens(96)
    assert relative_error(runtime.logits(ids), reference.logits(ids)) <= TOLERANCE[case]


def test_a_single_token_is_a_prompt(runtime: Runtime, reference: TorchRuntime, case: Case) -> None:
    expected = reference.logits([5])
    assert relative_error(runtime.logits([5]), expected) <= TOLERANCE[case]
    assert relative_error(runtime.start([5]), expected[0]) <= TOLERANCE[case]


def test_start_gives_the_logits_after_the_prompt(runtime: Runtime, case: Case) -> None:
    ids = tokens(40)
    last = runtime.logits(ids)[-1]
    started = runtime.start(ids)
    assert started.dtype == np.float32
    assert relative_error(started, last) <= SELF_TOLERANCE[case]


def test_steps_give_the_logits_of_the_longer_sequence(runtime: Runtime, case: Case) -> None:
    ids = tokens(40)
    expected = runtime.logits(ids)[19:]
    rows = [runtime.start(ids[:20]), *(runtime.step(token) for token in ids[20:])]
    assert rows[-1].dtype == np.float32
    assert relative_error(np.stack(rows), expected) <= SELF_TOLERANCE[case]


def test_a_new_start_forgets_the_last_sequence(runtime: Runtime) -> None:
    ids = tokens(12, seed=1)
    fresh = [runtime.start(ids), runtime.step(3)]
    runtime.start(tokens(33, seed=2))
    runtime.step(7)
    assert np.array_equal([runtime.start(ids), runtime.step(3)], fresh)
    runtime.logits(tokens(21, seed=3))
    assert np.array_equal([runtime.start(ids), runtime.step(3)], fresh)


def test_results_survive_the_next_call(runtime: Runtime) -> None:
    first, started = runtime.logits(tokens(8)), runtime.start(tokens(8))
    copies = first.copy(), started.copy()
    runtime.logits(tokens(8, seed=4))
    runtime.step(1)
    assert np.array_equal(first, copies[0])
    assert np.array_equal(started, copies[1])


def test_long_sequences_prefill_and_decode(
    runtime: Runtime, reference: TorchRuntime, case: Case
) -> None:
    """Past 512 and 1024 tokens: first contexts, chunks and cache pages end there."""
    ids = tokens(1030)
    expected = reference.logits(ids)
    assert relative_error(runtime.logits(ids), expected) <= SELF_TOLERANCE[case]
    for length in (506, 1020):
        rows = [runtime.start(ids[:length]), *map(runtime.step, ids[length : length + 10])]
        assert (
            relative_error(np.stack(rows), expected[length - 1 : length + 10])
            <= SELF_TOLERANCE[case]
        )


def test_sequences_that_grow_together_have_the_logits_of_each_alone(
    runtime: Runtime, case: Case
) -> None:
    if not isinstance(runtime, ManyRuntime):
        pytest.skip("it holds one sequence")
    texts = [tokens(length, seed=length) for length in (7, 140, 33)]
    alone = [runtime.start(tokens(9)), runtime.step(3)]
    rows = [runtime.start_many([ids[:-3] for ids in texts], room=3)]
    rows += [runtime.step_many([ids[at] for ids in texts]) for at in (-3, -2, -1)]
    assert rows[0].dtype == np.float32
    for got, ids in zip(np.stack(rows, 1), texts, strict=True):
        expected = runtime.logits(ids)[-4:]
        assert relative_error(got, expected) <= SELF_TOLERANCE[case]
    assert np.array_equal([runtime.start(tokens(9)), runtime.step(3)], alone)
    with pytest.raises(ValueError, match="empty"):
        runtime.start_many([[3], []], room=1)
    runtime.start_many(texts, room=1)
    with pytest.raises(ValueError, match="before start"):
        runtime.step(1)


def test_going_on_from_a_shared_beginning_gives_the_logits_of_the_whole(
    runtime: Runtime, case: tuple[str, str]
) -> None:
    assert isinstance(runtime, RewindingRuntime)
    first, length = tokens(600), 530
    second = [*first[:length], *tokens(30, seed=5)]
    expected = runtime.logits(second)
    runtime.start(first)
    runtime.step(7)
    assert runtime.rewind(length) == length
    rows = np.concatenate([block.copy() for block in runtime.logit_blocks(second, 533, length)])
    assert relative_error(rows, expected[533:]) <= SELF_TOLERANCE[case]
    assert runtime.rewind(3) == 3
    assert relative_error(runtime.start(second[:9], 3), expected[8]) <= SELF_TOLERANCE[case]
    assert relative_error(runtime.step(second[9]), expected[9]) <= SELF_TOLERANCE[case]
    with pytest.raises(ValueError, match="kept"):
        runtime.start(second, 4)
    assert runtime.rewind(0) == 0
    assert relative_error(runtime.start(second), expected[-1]) <= SELF_TOLERANCE[case]


def test_it_tells_which_tokens_are_no_text(runtime: Runtime, reference: TorchRuntime) -> None:
    assert isinstance(runtime, MarkedTextRuntime)
    assert runtime.begin_token == reference.begin_token == 1
    assert runtime.special_tokens == reference.special_tokens == {0, 1, 2}


def test_an_empty_prompt_is_refused(runtime: Runtime) -> None:
    with pytest.raises(ValueError, match="empty"):
        runtime.logits([])
    with pytest.raises(ValueError, match="empty"):
        runtime.start([])


def test_closing_twice_is_harmless(case: Case, checkpoint: Path, root: Path) -> None:
    opened = open_case(case, checkpoint, root)
    opened.close()
    opened.close()
