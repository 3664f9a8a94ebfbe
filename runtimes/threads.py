"""The option `--threads` of commands that run a model on the processor."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
# Where users of CI and of containers with a quota, which no process can see, say it once.
VARIABLE = "EDGEPROOF_THREADS"
MOST = 512  # GGML_MAX_N_THREADS of llama.cpp, which ends the process beyond it


def processors() -> list[int]:
    """The processors that this process may run on, which may be fewer than the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)
    return sorted(affinity(0)) if affinity else list(range(os.cpu_count() or 1))


def threads_option(command: F) -> F:
    """`--threads`: what EDGEPROOF_THREADS says, else as many as there are processors."""
    return click.option(
        "--threads",
        type=click.IntRange(1, MOST),
        envvar=VARIABLE,
        default=lambda: len(processors()),
        show_default=f"{VARIABLE}, else the processors of this process",
        help="Threads of the runtimes.",
    )(command)
