"""`--budget` and `--text`: which text the commands of parity run over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from runtimes.parity.suite import Budget, Suite, built_in
from runtimes.parity.text_file import read_suite

Command = Callable[..., Any]


def text_options(command: Command) -> Command:
    """Give a command `budget` and `text`, which `chosen_suite` takes."""
    budget = click.option(
        "--budget",
        type=click.Choice([item.value for item in Budget]),
        default=Budget.DEFAULT.value,
        show_default=True,
        help="How much of the built-in text: about 1,800, 5,100 or 40,000 positions.",
    )
    text = click.option(
        "--text",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Your own text instead: plain text, or .jsonl with a text or messages in each line."
        " Without messages, chat templates and replies are not compared.",
    )
    return budget(text(command))


def chosen_suite(budget: str, text: Path | None) -> Suite:
    """The suite that the options ask for.

    Raises:
        InputError: the file is not a text.
    """
    return read_suite(text) if text else built_in(Budget(budget))
