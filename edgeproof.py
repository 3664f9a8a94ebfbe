"""The console script: joins the command lines of `export` and `runtimes`, loading only one."""

from __future__ import annotations

from importlib import import_module

import click

from export import __version__

# Command → module and attribute; a command's module is imported when it is used.
COMMANDS = {
    "export": ("export.__main__", "main"),
    "onnx": ("export.onnx.__main__", "main"),
    "gguf": ("export.gguf.__main__", "main"),
    "mlc": ("export.mlc.__main__", "main"),
    "imatrix": ("runtimes.imatrix.__main__", "main"),
    "parity": ("runtimes.parity.__main__", "main"),
    "footprint": ("runtimes.footprint", "main"),
    "release": ("export.release.__main__", "main"),
    "status": ("export.status", "main"),
    "clean": ("export.clean", "main"),
    "chat": ("runtimes.chat.__main__", "main"),
    "compare": ("runtimes.parity.compare", "main"),
    "demo": ("demo.__main__", "main"),
}


class LazyGroup(click.Group):
    """A group whose commands are imported on demand, so that `edgeproof gguf` starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All command names, in pipeline order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.command(cls=LazyGroup)
@click.version_option(__version__, prog_name="edgeproof")
def main() -> None:
    """Ship small language models to ONNX, GGUF and MLC, and prove each file against PyTorch."""
