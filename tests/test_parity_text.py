"""The text of the comparison: built-in budgets, the user's own files, and its capture."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproof.errors import InputError
from runtimes.parity import reference as parity_reference
from runtimes.parity.divergence import compare, concatenate
from runtimes.parity.reference import GROUP, load_reference
from runtimes.parity.suite import REPLY_TOKENS, Budget, Prompt, Suite, built_in
from runtimes.parity.text_file import LONGEST_CHARACTERS, documents, read_suite
from runtimes.pytorch import TorchRuntime
from runtimes.registry import open_reference
from tests.tiny import make_checkpoint

pytestmark = pytest.mark.numbers


def test_each_budget_has_the_text_of_those_before_it_and_more() -> None:
    fast, default, full = (built_in(budget).prompts for budget in Budget)
    assert {p.id for p in fast} < {p.id for p in default} < {p.id for p in full}
    assert all(prompt in default for prompt in fast)
    assert all(prompt in full for prompt in default)
    assert {prompt.kind for prompt in fast} >= {
        "chat", "multi-turn", "prose", "code", "arithmetic", "unicode"
    }  # fmt: skip


def test_the_full_budget_has_200_chats_and_a_text_that_fills_a_context() -> None:
    prompts = built_in(Budget.FULL).prompts
    assert sum(bool(prompt.messages) for prompt in prompts) >= 200
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    assert len({(prompt.text, str(prompt.messages)) for prompt in prompts}) == len(prompts)
    long = next(prompt.text for prompt in prompts if prompt.kind == "long")
    assert long is not None
    assert len(long) > 5 * 8192


@given(st.text(alphabet="ab \n", max_size=9000) | st.text(max_size=400).map(lambda t: t * 40))
def test_cutting_a_text_loses_nothing_but_blanks(text: str) -> None:
    parts = documents(text)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(part.strip() and len(part) <= LONGEST_CHARACTERS for part in parts)


def test_jsonl_rows_are_texts_or_chats(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    chat = [{"role": "user", "content": "Hi"}]
    path.write_text(
        json.dumps({"text": "Once."}) + "\n\n" + json.dumps({"id": "c", "messages": chat})
    )
    once, greeting = read_suite(path).prompts
    assert (once.id, once.kind, once.text) == ("line-1", "text", "Once.")
    assert (greeting.id, greeting.kind, greeting.messages) == ("c", "chat", tuple(chat))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", "no text"),
        ("a.txt", b" \n\n ", "no text"),
        ("a.txt", b"\xff\xfe\xff", "UTF-8"),
        ("a.jsonl", b"{", "line 1: not a JSON object with text or messages"),
        ("a.jsonl", b'{"text": "x"}\n[1]', "line 2"),
        ("a.jsonl", b'{"text": ""}', "either text or messages"),
        ("a.jsonl", b'{"text": "x", "messages": [{"role": "user", "content": "y"}]}', "either"),
        ("a.jsonl", b'{"messages": [{"role": "user"}]}', "line 1"),
        ("a.jsonl", b'{"messages": [{"role": "user", "content": ""}]}', "no content"),
        ("missing.txt", None, "cannot be read"),
    ],
)
def test_text_that_cannot_be_used_is_refused(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_suite(tmp_path / name)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> TorchRuntime:
    return open_reference(make_checkpoint(tmp_path_factory.mktemp("text") / "tiny"), 2)


class Interrupted(Exception):
    pass


def test_an_interrupted_capture_goes_on_where_it_stopped(
    runtime: TorchRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = Suite("test", built_in(Budget.DEFAULT).prompts[: 2 * GROUP + 1])
    undisturbed = load_reference(runtime, suite, (), lambda: None)
    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path / "second"))
    seen = 0

    def stop_in_the_second_group() -> None:
        nonlocal seen
        seen += 1
        if seen > GROUP:
            raise Interrupted

    with pytest.raises(Interrupted):
        load_reference(runtime, suite, (), stop_in_the_second_group)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    assert len(files) == 2
    resumed = load_reference(runtime, suite, (), lambda: None)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert resumed.documents == undisturbed.documents
    assert resumed.peaks == undisturbed.peaks
    for one, other in zip(resumed.hidden, undisturbed.hidden, strict=True):
        assert np.array_equal(one, other)


def test_a_damaged_capture_is_made_again(runtime: TorchRuntime, tmp_path: Path) -> None:
    suite = Suite("test", built_in(Budget.FAST).prompts[:2])
    before = load_reference(runtime, suite, (), lambda: None)
    (path,) = Path(os.environ["EDGEPROOF_CACHE"]).rglob("*.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    after = load_reference(runtime, suite, (), lambda: None)
    assert path.read_bytes() == whole
    for one, other in zip(after.hidden, before.hidden, strict=True):
        assert np.array_equal(one, other)


def test_only_chats_with_room_for_the_longest_reply_are_to_be_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chats behind the first have shorter replies, and so may have longer prompts."""
    monkeypatch.setattr(parity_reference, "GREEDY_PROMPTS", 2)
    longest, context = 2 * REPLY_TOKENS, 4 * REPLY_TOKENS
    model = make_checkpoint(tmp_path / "tiny", max_position_embeddings=context)
    runtime = open_reference(model, 1)

    def chat(name: str, words: int) -> Prompt:
        return Prompt(name, "chat", messages=({"role": "user", "content": "7 " * words},))

    sizes = {"a long": 40, "b": 2, "c": 3, "d long": 40, "e": 4}
    prompts = tuple(chat(name, words) for name, words in sizes.items())
    found = load_reference(runtime, Suite("chats", prompts, longest), (), lambda: None)
    by_name = {document.id: document for document in found.documents}
    assert context - longest < by_name["d long"].prompt_length <= context - REPLY_TOKENS
    assert [chat.id for chat in found.greedy_chats] == ["b"]
    assert [chat.id for chat in found.sampled_chats] == ["b", "c", "e"]
    assert found.reply_tokens == longest


def test_blocks_of_a_long_text_give_the_metrics_of_the_whole() -> None:
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 50, 40).tolist()
    p, q = (rng.normal(size=(40, 50)).astype(np.float32) for _ in range(2))
    whole = compare(p, q, ids)
    parts = [compare(p[a:b], q[a:b], ids[a : b + 1]) for a, b in ((0, 16), (16, 40))]
    joined = concatenate(parts)
    assert np.array_equal(joined.kl, whole.kl)
    assert np.array_equal(joined.nll_export, whole.nll_export, equal_nan=True)
    assert np.isnan(whole.nll_export).sum() == 1
