"""Optimum's environment: its pins exclude those of this project."""

from __future__ import annotations

from pathlib import Path

import click

from export.environment import isolated_environment

# What is asked for, which the recipe names; all that this needs; and what torch's CUDA build does.
REQUIREMENTS = Path(__file__).parent / "requirements.in"
PINS = REQUIREMENTS.with_suffix(".txt")
CUDA_PINS = REQUIREMENTS.with_name("requirements-cuda.txt")


def optimum_bin() -> Path:
    """The folder of the programs of an environment with Optimum.

    Raises:
        InputError: it does not exist yet and cannot be made.
    """
    return isolated_environment(
        "optimum", PINS, lambda text: click.echo(text, err=True), else_needed=CUDA_PINS
    )


def pinned_versions(requirements: Path) -> dict[str, str]:
    """Package → version of every pin, as the artifact's manifest records them."""
    lines = requirements.read_text("utf-8").splitlines()
    pins = (line.split("==") for line in lines if "==" in line)
    return {f"optimum environment: {name}": version for name, version in pins}
