"""The console script: joins the command lines of `export` and `runtimes`, loading only one.

Each format has a command, those that other packages bring as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module

import click

from edgeproof import __version__
from edgeproof.command import EdgeproofGroup
from edgeproof.extras import optional_packages


@dataclass(frozen=True)
class CommandEntry:
    """A command that is not imported yet: what imports it, and its line in the list of commands."""

    load: Callable[[], click.Command]
    summary: str


def _entry(module: str, summary: str) -> CommandEntry:
    """The command `main` of a module."""
    return CommandEntry(lambda: import_module(module).main, summary)


OURS = {
    "export": _entry(
        "export.__main__", "Export every model of a plan in every variant of the plan."
    ),
    "run": _entry(
        "edgeproof.steps.command",
        "Export a plan, run every file and compare it with PyTorch, in one command.",
    ),
    "gguf-adapter": _entry(
        "export.gguf.adapter",
        "Write a PEFT LoRA as llama.cpp's GGUF adapter: `llama-cli -m base.gguf --lora NAME.gguf`.",
    ),
    "imatrix": _entry(
        "runtimes.imatrix.__main__",
        "Write the importance matrix of a checkpoint, in llama.cpp's GGUF format.",
    ),
    "recover": _entry(
        "runtimes.recover.__main__",
        "Make a checkpoint on the grids of a few bits that is close to the original.",
    ),
    "parity": _entry(
        "runtimes.parity.__main__",
        "Run artifacts in their runtimes and compare them with PyTorch.",
    ),
    "audit": _entry(
        "runtimes.audit.__main__",
        "Say what is in files of any maker, and how far they are from the original.",
    ),
    "footprint": _entry(
        "runtimes.footprint",
        "Open ARTIFACT, read 256 tokens, write 16: seconds, tokens/s and peak memory as JSON.",
    ),
    "release": _entry(
        "export.release.__main__",
        "Turn the exports that passed into downloads that prove themselves.",
    ),
    "status": _entry(
        "export.status",
        "List artifacts with their verdicts, and which an export would make again.",
    ),
    "clean": _entry("export.clean", "Remove stale artifacts, and what is cached."),
    "doctor": _entry(
        "runtimes.doctor.__main__",
        "Say which runtimes, devices and tools are here, and what brings those that are missing.",
    ),
    "chat": _entry(
        "runtimes.chat.__main__",
        "Chat with an export in its runtime, through its own chat template.",
    ),
    "compare": _entry(
        "runtimes.parity.compare",
        "Is export B better than export A? Both run over the same text, in their runtimes.",
    ),
    "eval": _entry(
        "runtimes.tasks.__main__",
        "Run tasks of EleutherAI's lm-evaluation-harness over exports, in their runtimes.",
    ),
    "demo": _entry(
        "runtimes.demo.__main__",
        "A chat page that runs exports in the reader's browser: built once, served anywhere.",
    ),
}


def commands() -> dict[str, CommandEntry]:
    """All commands in pipeline order; one that is ours is never another package's."""
    formats = import_module("export.formats")
    exporters = {
        name: CommandEntry(partial(formats.command, name), summary)
        for name, summary in formats.summaries().items()
    }
    return {"export": OURS["export"], **exporters, **OURS}


class LazyGroup(EdgeproofGroup):
    """A group whose commands are imported when they run or show their own help.

    So `edgeproof gguf` starts fast, and what one command needs and lacks is no other's matter.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All command names, in pipeline order."""
        return list(commands())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command.

        Raises:
            InputError: it needs a package that is not installed, or is of a format that cannot be
                loaded.
        """
        # What other packages bring is looked for only where it is asked for: that takes time.
        entry = OURS.get(cmd_name) or commands().get(cmd_name)
        if entry is None:
            return None
        with optional_packages():
            return entry.load()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in commands().items()])


@click.command(cls=LazyGroup)
@click.version_option(__version__, prog_name="edgeproof")
def main() -> None:
    """Ship small language models to ONNX, GGUF and MLC, and prove each file against PyTorch."""
