"""How PyTorch computes the reference, as options say it; nothing of PyTorch is imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
AUTO, WHOLE, LAYERS = "auto", "whole", "layers"
CPU = "cpu"
DEVICES = (AUTO, "cuda", "mps", CPU)


@dataclass(frozen=True)
class Computing:
    """`weights`: whole in memory, one layer's at a time, or `auto`: whole where that fits.

    `device` is one of `DEVICES`; `auto` is a GPU where there is one.
    """

    weights: str = AUTO
    device: str = AUTO


AUTOMATIC = Computing()
ON_CPU = Computing(device=CPU)  # where nothing holds a GPU's numbers against the CPU's


def computing_options(command: F) -> F:
    """`--reference-weights` and `--device`."""
    return device_option(
        click.option(
            "--reference-weights",
            type=click.Choice((AUTO, WHOLE, LAYERS)),
            default=AUTO,
            show_default=True,
            help="Have all of the original's weights in memory as float32, or one layer's at a"
            " time: the same numbers, and longer; auto: whole where that fits.",
        )(command)
    )


def device_option(command: F) -> F:
    """`--device`: where PyTorch computes."""
    return click.option(
        "--device",
        type=click.Choice(DEVICES),
        default=AUTO,
        show_default=True,
        help="Where PyTorch computes the reference, in float32 without TF32; auto: a GPU where it"
        " finds one.",
    )(command)
