"""`python -m runtimes.browser`: set up what pages need, and say what they get."""

from __future__ import annotations

import click

from edgeproof.command import EdgeproofCommand
from runtimes.browser.chromium import install_chromium, with_gpu
from runtimes.browser.packages import web_packages


@click.command(cls=EdgeproofCommand, name="browser")
def main() -> None:
    """Fetch what the browser runtime and the demo need, once.

    EDGEPROOF_CHROMIUM is the path of a Chromium or Chrome of yours; EDGEPROOF_VULKAN=system takes
    this machine's own GPU.
    """
    click.echo(f"packages: {web_packages(click.echo)}")
    click.echo(f"Chromium: {install_chromium(click.echo)}")
    click.echo(f"WebGPU: {with_gpu().gpu}")


if __name__ == "__main__":
    main()
