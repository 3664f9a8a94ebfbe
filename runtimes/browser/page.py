"""One page in a Chromium of its own, driven through Playwright.

Playwright's synchronous interface belongs to the thread that started it and cannot start twice in
one, so every page has a thread: callers need not know of it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from playwright.sync_api import Error, Page, sync_playwright

from edgeproof.errors import InputError
from runtimes.browser.chromium import Browser, sandboxed

# Playwright's own defaults that are in the way of WebGPU in software.
UNWANTED = ["--enable-unsafe-swiftshader", "--disable-gpu"]
# What Chromium says where it may use neither user namespaces nor a helper of root's.
NO_SANDBOX = "No usable sandbox"

Result = TypeVar("Result")


class BrowserPage:
    """A page that stays open until `close`."""

    def __init__(self, browser: Browser, address: str) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._closing = contextlib.ExitStack()
        try:
            self._page = self._in_thread(lambda: self._open(browser, address))
        except BaseException:
            self.close()
            raise

    def call(self, function: str, argument: Any = None) -> Any:
        """What an asynchronous function of the page's `window` returns for a JSON-able argument.

        Raises:
            PageError: it throws.
        """
        script = f"argument => window.{function}(argument)"
        try:
            return self._in_thread(lambda: self._page.evaluate(script, argument))
        except Error as error:
            line = str(error.message).splitlines()[0]
            raise PageError(line.removeprefix("Page.evaluate: ")) from None

    def close(self) -> None:
        """End the page and its Chromium; calling it again does nothing."""
        with contextlib.suppress(RuntimeError):  # the thread is gone already
            self._in_thread(self._closing.close)
        self._thread.shutdown()

    def _in_thread(self, work: Callable[[], Result]) -> Result:
        return self._thread.submit(work).result()

    def _open(self, browser: Browser, address: str) -> Page:
        playwright = self._closing.enter_context(sync_playwright())
        try:
            chromium = playwright.chromium.launch(
                executable_path=browser.executable,
                headless=False,  # ours is among the arguments: Playwright's has no WebGPU
                args=[*browser.arguments],
                env={**os.environ, **browser.environment},
                ignore_default_args=UNWANTED,
                chromium_sandbox=sandboxed(),  # Playwright's own default is none
            )
        except Error as error:
            raise InputError(f"{browser.executable}: {_reason(error.message)}") from None
        self._closing.callback(chromium.close)
        page = chromium.new_page()
        page.set_default_timeout(0)  # a software GPU needs minutes for its first token
        page.goto(address)
        return page


def _reason(message: str) -> str:
    if NO_SANDBOX in message:
        return (
            "it has no sandbox on this machine: allow user namespaces (on Ubuntu an AppArmor"
            " profile for it), install its chrome-sandbox, or run as root in a container"
        )
    return f"does not start ({message.splitlines()[0]})"


class PageError(Exception):
    """A page's own exception; the message is its first line."""
