"""Replies side by side: grouped by prompt, cut where they part, and nothing hidden in them."""

from __future__ import annotations

from dataclasses import replace

from edgeproof.verdicts import Verdict
from runtimes.parity.replies import ReplyPair
from runtimes.parity.report.html import page
from runtimes.parity.report.texts import legible, sheets, visible
from runtimes.parity.result import Entry
from tests.parity_results import entry, measurement, result

SAME = ReplyPair("chat-1", "Hi?", 3, "one two three", "", "", "", "", False, False)
OTHER = ReplyPair("chat-1", "Hi?", 1, "one", " two", " three", " zwei", " drei", True, False)
SAMPLED = ReplyPair("chat-2", "Ho?", 0, "", "a", "b", "c", "d", False, True)


def answered(name: str, greedy: tuple[ReplyPair, ...], shown: tuple[ReplyPair, ...] = ()) -> Entry:
    m = measurement()
    assert m.greedy
    assert m.sampled
    measured = replace(
        m, greedy=replace(m.greedy, replies=greedy), sampled=replace(m.sampled, shown=shown)
    )
    return entry(name, Verdict.PASS, measured=measured)


def test_exports_are_grouped_by_prompt_and_those_that_agree_are_one_line() -> None:
    entries = [
        answered("f16", (SAME,), (SAMPLED,)),
        answered("q4_0", (OTHER,)),
        answered("q8_0", (SAME,)),
        entry("broken", Verdict.FAIL),
    ]
    found = sheets(entries)
    (greedy,), (sampled,) = found["Greedy"], found["Sampled"]
    assert (greedy.document, greedy.prompt) == ("chat-1", "Hi?")
    assert greedy.reference == "one two three"
    assert greedy.same == ("gguf f16", "gguf q8_0")
    assert [other.entry.name for other in greedy.others] == ["gguf q4_0"]
    assert (sampled.reference, len(sampled.others)) == ("ab", 1)
    assert sheets([entry("broken", Verdict.FAIL)]) == {}


def test_the_page_marks_the_first_differing_token_and_dims_the_rest() -> None:
    text = page(result(answered("f16", (SAME,)), answered("q4_0", (OTHER,))))
    assert 'one<mark> zwei</mark><span class="after"> drei</span>' in text
    assert "where PyTorch has <mark> two</mark>" in text
    assert "Word for word the same: gguf f16." in text
    assert "1 of 2 exports reply the same" in text


def test_a_run_without_replies_has_no_such_section() -> None:
    m = replace(measurement(), greedy=None, sampled=None)
    assert 'id="texts"' not in page(result(entry("f16", Verdict.PASS, measured=m)))


def test_tokens_without_a_glyph_are_named() -> None:
    assert visible("\u202e") == "‹U+202E›"
    assert visible("a\u200b") == "a‹U+200B›"
    assert visible("\x00") == "‹U+0000›"
    assert visible("�") == "�"
    assert visible("é日👩") == "é日👩"


def test_running_text_can_neither_hide_nor_turn_what_follows() -> None:
    assert legible("a\u202eb\x00\x1b[31m") == "a‹U+202E›b‹U+0000›‹U+001B›[31m"
    family = "👩\u200d👧 \t\n אבג"
    assert legible(family) == family
