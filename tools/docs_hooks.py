"""For MkDocs: the commands' own help, and links out of docs/ that are to files which are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.exceptions import PluginError

from edgeproof.cli import main

ROOT = Path(__file__).parent.parent
COMMANDS = "<!-- commands -->"
# Relative links that leave a folder, as GitHub's readers follow them.
UPWARDS = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+[^)#\s]+)\)")
WIDTH = 80


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put in every command's help; show a link out of docs/ as its text.

    Raises:
        PluginError: the repository has no such file either.
    """
    folder = Path(page.file.abs_src_path).parent

    def shown(found: re.Match[str]) -> str:
        target = (folder / found[2]).resolve()
        if target.is_relative_to(ROOT / "docs"):
            return found[0]
        if not target.exists():
            raise PluginError(f"{page.file.src_path}: no file {found[2]}")
        return f"`{found[1].strip('`')}`"

    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, "\n".join(_help(main, "edgeproof")))
    return UPWARDS.sub(shown, markdown)


def _help(command: click.Command, name: str) -> Iterator[str]:
    """A section for a command, and for each below it."""
    with click.Context(command, info_name=name, max_content_width=WIDTH) as context:
        context.terminal_width = WIDTH
        yield from (f"## `{name}`", "", "```text", command.get_help(context), "```", "")
        if isinstance(command, click.Group):
            for word in command.list_commands(context):
                below = command.get_command(context, word)
                if below is not None:
                    yield from _help(below, f"{name} {word}")
