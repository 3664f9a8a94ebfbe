"""Optimum's environment: its pins exclude those of this project."""

from __future__ import annotations

from pathlib import Path

import click

from export.environment import isolated_environment

REQUIREMENTS = Path(__file__).parent / "requirements.txt"


def optimum_bin() -> Path:
    """The folder of the programs of an environment with Optimum.

    Raises:
        InputError: it does not exist yet and cannot be made.
    """
    return isolated_environment("optimum", REQUIREMENTS, lambda text: click.echo(text, err=True))


def pinned_versions(requirements: Path) -> dict[str, str]:
    """Package → version of every pin, as the artifact's manifest records them."""
    lines = requirements.read_text("utf-8").splitlines()
    pins = (line.split("==") for line in lines if "==" in line)
    return {f"optimum environment: {name}": version for name, version in pins}
