"""The page in a real browser, where there is one: no request, no error, accessible."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeproof.artifact import Precision
from runtimes.parity.report.html import models_page, page
from tests.parity_results import hostile_result, result, usual_result
from tests.test_parity_advice import made

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python"
)


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Any]:
    with playwright.sync_playwright() as p:
        found = p.chromium.launch(executable_path=chromium, args=["--disable-gpu"])
        yield found
        found.close()


LOW = Precision.LOW_BIT
# Labels of plots that leave their picture, whose overflow is not seen.
CUT_OFF = """[...document.querySelectorAll('svg[role=img] text')].filter(text => {
  const [inner, outer] = [text, text.closest('svg')].map(e => e.getBoundingClientRect());
  return inner.width && (inner.top < outer.top - 1 || inner.bottom > outer.bottom + 1);
}).map(text => text.textContent)"""
PAGES = {
    "usual": lambda: page(usual_result()),
    "hostile": lambda: page(hostile_result()),
    "crowded": lambda: page(result(*(made("gguf", f"{i}", LOW, 100, 0.3) for i in range(20)))),
    "models": lambda: models_page([usual_result(), hostile_result()], ["a.html", "b.html"]),
}


@pytest.fixture(scope="module", params=list(PAGES))
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp(request.param) / "parity.html"
    path.write_text(PAGES[request.param]())
    return path.as_uri()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_in_chromium(browser: Any, address: str, width: int, scheme: str) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    messages: list[str] = []
    requests: list[str] = []
    tab.on("console", lambda message: messages.append(message.text))
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.on("dialog", lambda dialog: messages.append(dialog.message))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(address)
    tab.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    overview = "[aria-label='Verdicts of all exports']"
    room = f'(e => e.scrollWidth - e.clientWidth)(document.querySelector("{overview}"))'
    assert "usual" not in address or tab.evaluate(room) <= 0, "the table scrolls sideways"
    assert "hostile" in address or tab.evaluate(CUT_OFF) == []
    report = axe.Axe().run(tab).response
    assert [item["id"] for item in report["passes"]], "axe checked nothing"
    assert [(item["id"], item["nodes"][0]["html"]) for item in report["violations"]] == []
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [address]
    tab.close()
