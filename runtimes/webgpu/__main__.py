"""`python -m runtimes.webgpu`: set up the software GPU, and say which device would be used."""

from __future__ import annotations

import click

from edgeproof.command import EdgeproofCommand
from runtimes.formats.onnx import WEBGPU


@click.command(cls=EdgeproofCommand, name="webgpu")
def main() -> None:
    """Download what WebGPU without a GPU needs, once, and run one float16 shader on it.

    EDGEPROOF_VULKAN=system takes this machine's own Vulkan driver instead.
    """
    WEBGPU.load()
    from runtimes.webgpu.device import open_device

    click.echo(f"WebGPU with shader-f16: {open_device().description}")


if __name__ == "__main__":
    main()
