"""The built demo in a Chromium with a profile of its own: what tests do there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from runtimes.browser.chromium import Browser, sandboxed
from runtimes.browser.packages import packages_folder
from runtimes.browser.server import Site, serving

# The user's cache: each test has its own, and none fetches anything.
PACKAGES = packages_folder()
SCREENSHOTS = Path(__file__).parent.parent / "build" / "screenshots"
UNWANTED = ["--enable-unsafe-swiftshader", "--disable-gpu"]


class DemoPage:
    """An open page; everything that it asked other origins for, and what it complained about."""

    def __init__(self, context: Any, address: str, site: Site, unplug: Callable[[], None]) -> None:
        self.site = site
        self.unplug = unplug  # ends the server
        self.elsewhere: list[str] = []
        self.complaints: list[str] = []
        own = (address, "data:", "blob:")
        context.on(
            "request",
            lambda r: None if r.url.startswith(own) else self.elsewhere.append(r.url),
        )
        self.tab = context.new_page()
        self.tab.set_default_timeout(0)  # a real model on a busy machine needs its time
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.goto(address)
        self.ready()

    def ready(self) -> None:
        self.tab.wait_for_selector("body[data-ready]")

    def text(self, name: str) -> str:
        return str(self.tab.inner_text(f"#{name}"))

    def load(self, model: str, device: str = "auto") -> None:
        """Choose the export whose id ends so, load it, and wait for whatever comes of it."""
        self.tab.check(f"input[name=model][value$='{model}']")
        self.tab.select_option("#device", device)
        self.tab.click("#load")
        self.tab.wait_for_selector("#load:enabled")

    def ask(self, question: str, tokens: int = 20, temperature: float = 0.0) -> str:
        """Ask, wait for the end of the answer, and return it."""
        self.settings(tokens, temperature)
        self.tab.fill("#question", question)
        self.tab.press("#question", "Enter")
        self.tab.wait_for_selector("#log[aria-busy='false']")
        return str(self.tab.locator(".message.assistant p").last.inner_text())

    def settings(self, tokens: int, temperature: float) -> None:
        self.tab.evaluate("document.querySelector('details').open = true")
        self.tab.fill("#max-tokens", str(tokens))
        self.tab.fill("#temperature", str(temperature))

    def ids(self) -> list[int]:
        """The token ids of the last answer, which may end with the stop token."""
        return list(self.tab.evaluate("edgeproof.last.ids"))

    def screenshot(self, name: str, width: int, scheme: str) -> None:
        """Keep a picture of the page for people."""
        self.tab.set_viewport_size({"width": width, "height": 900})
        self.tab.emulate_media(color_scheme=scheme)
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.tab.screenshot(path=SCREENSHOTS / f"{name}-{width}-{scheme}.png", full_page=True)


@contextlib.contextmanager
def playwright_started() -> Iterator[Any]:
    """Playwright; it starts only once in a thread, so a test module shares it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright


@contextlib.contextmanager
def opened(
    playwright: Any, folder: Path, browser: Browser, profile: Path, *, isolated: bool = True
) -> Iterator[DemoPage]:
    """The demo in `folder`, served and open; `profile` is where the browser keeps things."""
    site = Site({"/": folder}, isolated=isolated)
    with contextlib.ExitStack() as server:
        address = server.enter_context(serving(site))
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=browser.executable,
            headless=False,
            args=[*browser.arguments, "--hide-scrollbars"],  # as on a phone
            env={**os.environ, **browser.environment},
            ignore_default_args=UNWANTED,
            chromium_sandbox=sandboxed(),
        )
        try:
            yield DemoPage(context, address, site, server.close)
        finally:
            context.close()
