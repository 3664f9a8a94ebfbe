"""The harness: a page with one stock library, and an artifact beside it."""

from __future__ import annotations

import contextlib
from importlib.resources import as_file, files

from edgeproof.artifact import Artifact
from runtimes.browser.chromium import Browser
from runtimes.browser.packages import web_packages
from runtimes.browser.page import BrowserPage
from runtimes.browser.server import Site, serving


def open_page(
    closing: contextlib.ExitStack,
    artifact: Artifact,
    browser: Browser,
    engine: str,
    largest_post: int = 0,
) -> tuple[BrowserPage, Site]:
    """The harness with one engine, beside an artifact at /artifact/; `closing` ends both.

    The page may post at most `largest_post` bytes at a time.

    Raises:
        InputError: Chromium does not start, or npm's packages cannot be had.
    """
    harness = closing.enter_context(as_file(files("runtimes.browser").joinpath("harness")))
    packages = web_packages(lambda line: None)
    mounts = {"/": harness, "/web/": packages, "/artifact/": artifact.path}
    site = Site(mounts, largest_post=largest_post)
    address = closing.enter_context(serving(site))
    page = BrowserPage(browser, f"{address}/?engine={engine}&token={site.token}")
    closing.callback(page.close)
    return page, site
