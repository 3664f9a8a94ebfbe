"""`make verify`: the real exports in the demo's page, in Chromium, with their stock libraries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeproof.artifact.run_record import load_run_record
from runtimes.browser.chromium import without_gpu
from runtimes.demo.build import build
from runtimes.registry import open_reference
from tests.demo_page import DemoPage, opened, playwright_started
from tests.replies import greedy_reply

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("chromium", "web_packages")]

MODEL = "SmolLM2-135M-Instruct"
QUESTION = "What is the capital of France?"
STOP_TOKEN = 2


@pytest.fixture(scope="module")
def page(real_artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoPage]:
    folder = tmp_path_factory.mktemp("demo") / "site"
    root = real_artifacts / MODEL
    build(folder, [root / "onnx" / "q8", root / "gguf" / "q8_0"], print)
    profile = tmp_path_factory.mktemp("profile")
    with (
        playwright_started() as started,
        # One thread: two that spin crawl on a busy machine.
        opened(started, folder, without_gpu(), profile, isolated=False) as demo,
    ):
        yield demo


@pytest.fixture(scope="module")
def expected(real_artifacts: Path) -> list[int]:
    """PyTorch's greedy answer, without the stop token, which wllama does not show."""
    (model,) = load_run_record(real_artifacts).models
    reference = open_reference(Path(model.checkpoint), threads=2)
    prompt = reference.tokenize(reference.render_chat([{"role": "user", "content": QUESTION}]))
    reply = greedy_reply(reference, prompt, 20)
    return [token for token in reply if token != STOP_TOKEN]


@pytest.mark.parametrize("name", ["onnx/q8", "gguf/q8_0"])
def test_eight_bits_give_pytorchs_greedy_tokens_and_a_second_turn(
    page: DemoPage, expected: list[int], name: str
) -> None:
    page.load(name)
    assert page.text("problem") == ""
    assert "Paris" in page.ask(QUESTION)
    assert [token for token in page.ids() if token != STOP_TOKEN] == expected
    assert "Rome" in page.ask("And of Italy?")
    page.screenshot(name.replace("/", "-"), 1280, "light")
    page.screenshot(name.replace("/", "-"), 390, "dark")
    stop_after_the_first_words(page)
    page.tab.click("#clear")


def stop_after_the_first_words(page: DemoPage) -> None:
    page.settings(tokens=200, temperature=0.2)
    page.tab.fill("#question", "Tell me a very long story about the sea.")
    page.tab.press("#question", "Enter")
    page.tab.wait_for_selector(".message.assistant:last-child p:not(:empty)")
    page.tab.press("#question", "Escape")
    page.tab.wait_for_selector("#log[aria-busy='false']")
    assert len(page.ids()) < 100
    assert page.text("problem") == ""


def test_the_verdict_of_the_comparison_is_beside_each_export(page: DemoPage) -> None:
    verdicts: list[Any] = page.tab.locator(".verdict").all_inner_texts()
    assert verdicts == ["PASS", "PASS"]


def test_nothing_was_asked_of_another_origin(page: DemoPage) -> None:
    assert page.site.requests
    assert page.elsewhere == []
    assert page.complaints == []
