"""The console script: joins the command lines of `export` and `runtimes`, loading only one."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click

from edgeproof import __version__
from edgeproof.command import error_boundary
from edgeproof.extras import optional_packages


@dataclass(frozen=True)
class CommandEntry:
    """A command that is not imported yet: where it is, and its line in the list of commands."""

    module: str
    summary: str


COMMANDS = {
    "export": CommandEntry(
        "export.__main__", "Export every model of a plan in every variant of the plan."
    ),
    "onnx": CommandEntry(
        "export.onnx.__main__",
        "Export a Llama-family checkpoint to ONNX (ONNX Runtime, transformers.js, Optimum).",
    ),
    "gguf": CommandEntry("export.gguf.__main__", "Export a Llama-family checkpoint to GGUF."),
    "mlc": CommandEntry(
        "export.mlc.__main__",
        "Export a Llama-family checkpoint to MLC weights (MLC-LLM, WebLLM).",
    ),
    "imatrix": CommandEntry(
        "runtimes.imatrix.__main__",
        "Write the importance matrix of a checkpoint, in llama.cpp's GGUF format.",
    ),
    "parity": CommandEntry(
        "runtimes.parity.__main__",
        "Run artifacts in their real runtimes and compare them with PyTorch.",
    ),
    "footprint": CommandEntry(
        "runtimes.footprint",
        "Open ARTIFACT, read 256 tokens, write 16: seconds, tokens/s and peak memory as JSON.",
    ),
    "release": CommandEntry(
        "export.release.__main__",
        "Turn the exports that passed into downloads that prove themselves.",
    ),
    "status": CommandEntry(
        "export.status",
        "List artifacts with their verdicts, and which an export would make again.",
    ),
    "clean": CommandEntry("export.clean", "Remove stale artifacts."),
    "chat": CommandEntry(
        "runtimes.chat.__main__",
        "Chat with an export in its real runtime, through its own chat template.",
    ),
    "compare": CommandEntry(
        "runtimes.parity.compare",
        "Is export B better than export A? Both run over the same text, in their real runtimes.",
    ),
    "demo": CommandEntry(
        "runtimes.demo.__main__",
        "A chat page that runs exports in the reader's browser: built once, served anywhere.",
    ),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they run or show their own help.

    So `edgeproof gguf` starts fast, and what one command needs and lacks is no other's matter.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All command names, in pipeline order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command.

        Raises:
            InputError: it needs a package that is not installed.
        """
        if cmd_name not in COMMANDS:
            return None
        with optional_packages():
            command: click.Command = import_module(COMMANDS[cmd_name].module).main
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; one that cannot be loaded is one line."""
        with error_boundary(ctx):
            return super().invoke(ctx)


@click.command(cls=LazyGroup)
@click.version_option(__version__, prog_name="edgeproof")
def main() -> None:
    """Ship small language models to ONNX, GGUF and MLC, and prove each file against PyTorch."""
