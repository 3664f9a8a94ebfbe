"""Replies: one sampler, shared random numbers, every runtime's own KV cache, and how texts read."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.parity import decoding
from runtimes.parity.answers import decode_greedily, greedy_result, sampled_result
from runtimes.parity.decoding import (
    TOGETHER,
    NotFinite,
    decode,
    decode_all,
    draw,
    sampled,
    uniforms,
)
from runtimes.parity.degeneration import Scorer, repetition
from runtimes.parity.divergence import nucleus
from runtimes.parity.reference import load_reference
from runtimes.parity.samples import reference_samples
from runtimes.parity.suite import REPLY_TOKENS, Document, Prompt, Suite
from runtimes.protocol import Runtime
from runtimes.pytorch import TorchRuntime
from runtimes.registry import open_reference, open_runtime
from tests.exported import export_tiny
from tests.replies import greedy_reply
from tests.tiny import change_json, make_checkpoint
from tests.tolerance import REORDERED_FLOAT32, relative_error

THREADS = 1
EXACT = [("onnx", "fp32"), ("gguf", "f32")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("decoding") / "tiny")


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Iterator[TorchRuntime]:
    runtime = open_reference(checkpoint, THREADS)
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def scorer(reference: TorchRuntime) -> Scorer:
    return Scorer(reference, reference.stop_tokens)


@pytest.fixture(scope="module")
def chats(reference: TorchRuntime) -> list[Document]:
    result = []
    for index, text in enumerate(("Hello", "What is 2 + 2?", "Write a poem.")):
        prompt = reference.tokenize(reference.render_chat([{"role": "user", "content": text}]))
        reply = greedy_reply(reference, prompt, REPLY_TOKENS)
        result.append(Document(str(index), "chat", (*prompt, *reply), len(prompt)))
    return result


def one_reply(
    runtime: Runtime, prompt: Sequence[int], stop_tokens: Collection[int]
) -> tuple[int, ...]:
    return decode(runtime, sampled(prompt, REPLY_TOKENS), stop_tokens).reply


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_draws_have_the_sampling_distribution(seed: int) -> None:
    """Inverse CDF: evenly spread numbers hit each token in proportion to its probability."""
    logits = np.random.default_rng(seed).normal(0, 0.5, 40).astype(np.float32)
    chances = nucleus(logits.astype(np.float64))
    count = 2000
    drawn = [draw(logits, (i + 0.5) / count) for i in range(count)]
    for token in set(drawn) | set(chances):
        assert drawn.count(token) / count == pytest.approx(chances[token], abs=1.5 / count)


def test_the_largest_uniform_number_is_still_a_token() -> None:
    assert draw(np.zeros(7, np.float32), np.nextafter(1.0, 0.0)) == 6


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nothing_is_drawn_from_what_is_no_number(value: float) -> None:
    with pytest.raises(NotFinite, match="NaN or infinite logits"):
        draw(np.array([0, value, 1], np.float32), 0.5)
    assert draw(np.array([0, -np.inf, 1], np.float32), 0.99) == 2


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_nearly_equal_logits_draw_the_same_tokens(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 1, (REPLY_TOKENS, 40))
    noisy = rows + rng.normal(0, 1e-6, rows.shape)
    numbers = uniforms([seed], REPLY_TOKENS)
    same = [draw(a, u) == draw(b, u) for a, b, u in zip(rows, noisy, numbers, strict=True)]
    assert np.mean(same) >= 0.95


def test_each_prompt_has_random_numbers_of_its_own_that_never_change() -> None:
    assert np.array_equal(uniforms([1, 2], 5), uniforms((1, 2), 9)[:5])
    assert not np.array_equal(uniforms([1, 2], 5), uniforms([1, 2, 3], 5))
    assert uniforms([1], 2).tolist() == [0.11174377323036988, 0.3139512540659237]


@pytest.mark.parametrize(("form", "variant"), EXACT)
def test_an_exact_export_repeats_every_reply_of_pytorch(
    checkpoint: Path,
    reference: TorchRuntime,
    scorer: Scorer,
    chats: list[Document],
    tmp_path: Path,
    form: str,
    variant: str,
) -> None:
    prompts = [chat.prompt for chat in chats]
    expected = reference_samples(reference, (), prompts, REPLY_TOKENS, len(chats))
    runtime = open_runtime(export_tiny(checkpoint, form, variant, tmp_path), THREADS)
    stop = scorer.stop_tokens
    tasks = [sampled(prompt, REPLY_TOKENS) for prompt in prompts]
    replies = [item.reply for item in decode_all(runtime, tasks, stop, together=True)]
    decoded = decode_greedily(runtime, chats, REPLY_TOKENS, stop, together=True)
    runtime.close()
    result = sampled_result(chats, replies, expected, scorer, reference.detokenize)
    greedy = greedy_result(chats, decoded, scorer, reference.detokenize)
    assert len({result.replies, result.reference_replies}) == 1
    assert (result.identical, result.prompts) == (3, 3)
    assert result.agreed_tokens == result.reply_tokens
    assert result.agreement.value == 1
    assert result.texts == result.reference_texts
    assert greedy.identical == 3
    for reply in (*greedy.replies, *result.shown):
        assert (reply.reference_token, reply.export_token) == ("", "")
    assert greedy.texts == greedy.reference_texts


def test_a_damaged_model_diverges_and_the_reference_finds_its_text_unlikely(
    checkpoint: Path, reference: TorchRuntime, scorer: Scorer, chats: list[Document], tmp_path: Path
) -> None:
    other = open_reference(make_checkpoint(tmp_path / "other", seed=5), THREADS)
    prompts = [chat.prompt for chat in chats]
    expected = reference_samples(reference, (), prompts, REPLY_TOKENS, len(chats))
    replies = [one_reply(other, prompt, scorer.stop_tokens) for prompt in prompts]
    result = sampled_result(chats, replies, expected, scorer, reference.detokenize)
    assert result.identical == 0
    assert result.agreed_tokens < 5
    for shown, mine, theirs in zip(
        result.shown, result.replies, result.reference_replies, strict=True
    ):
        assert shown.same == reference.detokenize(mine[: shown.agreed_tokens]).rstrip("\ufffd")
        assert shown.same + shown.export_token + shown.export_rest == reference.detokenize(mine)
        texts = shown.same + shown.reference_token + shown.reference_rest
        assert texts == reference.detokenize(theirs)
        assert shown.export_token
    assert result.texts.perplexity > 3 * result.reference_texts.perplexity


def test_the_references_samples_are_decoded_once(
    reference: TorchRuntime, chats: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [chat.prompt for chat in chats]
    first = reference_samples(reference, (), prompts, REPLY_TOKENS, len(chats))
    assert first == [one_reply(reference, prompt, reference.stop_tokens) for prompt in prompts]
    monkeypatch.setattr(reference, "start_many", None)
    for wanted in (3, 1):
        again = reference_samples(reference, (), prompts, REPLY_TOKENS, wanted)
        assert again == first[:wanted]


def test_a_reply_ends_with_its_stop_token(reference: TorchRuntime, chats: list[Document]) -> None:
    free = one_reply(reference, chats[0].prompt, ())
    stopped = one_reply(reference, chats[0].prompt, {free[5]})
    assert len(free) == REPLY_TOKENS
    assert stopped == free[: free.index(free[5]) + 1]


def test_replies_that_are_decoded_together_are_those_of_each_alone(
    reference: TorchRuntime, chats: list[Document]
) -> None:
    """More than one batch, of several lengths, with ends at different steps."""
    prompts = [chat.prompt[: 5 + index] for index in range(4) for chat in chats]
    assert len(prompts) > TOGETHER
    tasks = [sampled(prompt, 8 + index) for index, prompt in enumerate(prompts)]
    free = [decode(reference, task, ()) for task in tasks]
    assert [len(item.reply) for item in free] == [task.count for task in tasks]
    stop = {free[0].reply[2], free[-1].reply[4]}
    for stops in ((), stop):
        alone = [decode(reference, task, stops) for task in tasks]
        together = [*decode_all(reference, tasks, stops, together=True)]
        assert [item.reply for item in together] == [item.reply for item in alone]
        for one, other in zip(alone, together, strict=True):
            assert relative_error(np.stack(other.rows), np.stack(one.rows)) <= REORDERED_FLOAT32


def test_a_long_prompt_is_read_without_company(
    reference: TorchRuntime, chats: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a call of its own: of 8 together the attention scores alone would need gigabytes."""
    prompts = [chat.prompt for chat in chats]
    tasks = [sampled(prompt, 4) for prompt in prompts]
    alone = [decode(reference, task, ()).reply for task in tasks]
    monkeypatch.setattr(decoding, "LONGEST_TOGETHER", max(map(len, prompts)) - 1)
    monkeypatch.setattr(reference, "start_many", None)
    found = decode_all(reference, tasks, (), together=True)
    assert [item.reply for item in found] == alone


def test_greedy_is_the_most_likely_token_whatever_the_generation_config_says(
    checkpoint: Path, reference: TorchRuntime, chats: list[Document], tmp_path: Path
) -> None:
    folder = tmp_path / "penalised"
    shutil.copytree(checkpoint, folder)
    change_json(
        folder / "generation_config.json", repetition_penalty=5.0, num_beams=4, max_length=60,
        min_new_tokens=20, no_repeat_ngram_size=1,
    )  # fmt: skip
    other = open_reference(folder, THREADS)
    suite = Suite("one", (Prompt("1", "chat", None, ({"role": "user", "content": "Hello"},)),))
    (document,) = load_reference(other, suite, (), lambda: None).documents
    logits = reference.logits(document.ids)
    assert document.reply == chats[0].reply
    assert len(set(document.reply)) < len(document.reply)
    assert [*document.reply] == logits[document.prompt_length - 1 : -1].argmax(-1).tolist()


def test_a_loop_is_seen_and_a_varied_text_is_none() -> None:
    assert repetition(range(48)) == 0
    assert repetition([1, 2, 3] * 16) == pytest.approx(1 - 3 / 45)
    assert repetition([1, 2]) == 0


def test_the_figures_of_texts_follow_their_definitions(
    reference: TorchRuntime, chats: list[Document]
) -> None:
    prompt, stop = chats[0].prompt, 2
    replies = [(7, 8, 9, 7, 8, 9, 7, 8), (30, stop)]
    quality = Scorer(reference, {stop}).quality([prompt, prompt], replies)
    assert quality.tokens == 5
    assert quality.stopped == 0.5
    assert quality.repetition == pytest.approx((2 / 5 + 0) / 2)
    costs = []
    for reply in replies:
        rows = reference.logits([*prompt, *reply]).astype(np.float64)
        chance = np.exp(rows) / np.exp(rows).sum(-1, keepdims=True)
        costs += [-np.log(chance[len(prompt) - 1 + i, token]) for i, token in enumerate(reply)]
    assert quality.perplexity == pytest.approx(np.exp(np.mean(costs)))
