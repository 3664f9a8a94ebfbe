"""The formats that can be written: one `Format` each, ours and those that other packages bring.

A package brings a format by an entry point of the group `edgeproof.formats`, whose name is the
format's and whose object is a `Format`. Ours come first and cannot be replaced. A format is
imported when it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgeproof import plugins
from edgeproof.errors import InputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    import click

    from export.format import Format

GROUP = "edgeproof.formats"


@dataclass(frozen=True)
class Ours:
    """A format that is not imported yet: its module, which has `FORMAT`, and that one's title."""

    module: str
    title: str


OURS = {
    "onnx": Ours("export.onnx", "ONNX (ONNX Runtime, transformers.js, Optimum)"),
    "gguf": Ours("export.gguf", "GGUF"),
    "mlc": Ours("export.mlc", "MLC weights (MLC-LLM, WebLLM)"),
    "mlx": Ours("export.mlx", "MLX (mlx-lm on Apple silicon)"),
}


def known_formats() -> list[str]:
    """Their names, ours first."""
    return [*OURS, *_brought()]


def load_format(name: str) -> Format[Any]:
    """The format of that name.

    Raises:
        InputError: an unknown one, or what a package brings for it cannot be loaded, is no Format,
            or has another name.
    """
    if name in OURS:
        ours: Format[Any] = import_module(OURS[name].module).FORMAT
        return ours
    brought = _brought()
    if name not in brought:
        raise InputError(f"unknown format {name!r}; choose from {', '.join(known_formats())}")
    from export.format import Format

    found: Format[Any] = plugins.load(brought[name], Format)
    if found.name != name:
        raise InputError(f"{brought[name].value}: is the format {found.name!r}, not {name!r}")
    return found


def summaries() -> dict[str, str]:
    """Name → a line on the command that exports to it; nothing is imported."""
    ours = {name: f"Export a Llama-family checkpoint to {it.title}." for name, it in OURS.items()}
    return {**ours, **{name: _summary(point) for name, point in _brought().items()}}


def command(name: str) -> click.Command:
    """The command that exports to a format.

    Raises:
        InputError: as `load_format`.
    """
    from export.command import format_command

    return format_command(load_format(name))


def _brought() -> dict[str, EntryPoint]:
    return plugins.brought(GROUP, OURS)


def _summary(point: EntryPoint) -> str:
    by = f" ({point.dist.name} {point.dist.version})" if point.dist else ""
    return f"Export a checkpoint to {point.name}{by}."
