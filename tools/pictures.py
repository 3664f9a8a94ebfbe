"""`make pictures`: what README shows, taken of the last run's report.

One picture for readers of light pages and one for dark ones, of the first screen of parity.html, in
few colours so that they stay small.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from runtimes.browser.chromium import find_chromium, sandboxed

FOLDER = Path(__file__).parent.parent / "docs" / "pictures"
WIDTH, HEIGHT, COLOURS = 1280, 960, 64


def main() -> None:
    """Take both, and say how large they are."""
    (report,) = sys.argv[1:]
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), chromium_sandbox=sandboxed()
        )
        for scheme in ("light", "dark"):
            page = browser.new_page(
                viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme
            )
            page.goto(Path(report).resolve().as_uri())
            picture = Image.open(io.BytesIO(page.screenshot()))
            target = FOLDER / f"report-{scheme}.png"
            picture.convert("RGB").quantize(COLOURS).save(target, optimize=True)
            print(f"{target}: {target.stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main()
