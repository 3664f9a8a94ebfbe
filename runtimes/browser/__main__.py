"""`python -m runtimes.browser`: set up what pages need, and say what they get."""

from __future__ import annotations

import click

from export.command import EdgeproofCommand, run_main
from export.errors import InputError
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
    try:
        click.echo(f"WebGPU with shader-f16: {with_gpu().gpu}")
    except InputError as error:
        click.echo(f"no WebGPU with shader-f16, WebAssembly only: {error}")


if __name__ == "__main__":
    run_main(main)
