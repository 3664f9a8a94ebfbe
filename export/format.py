"""What an export format offers to the command line and to plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import click

from export.artifact import ArtifactWriter, ModelIdentity, Variant
from export.checkpoint import CheckpointFolder
from export.errors import InputError

# Called with the number of checkpoint elements that were just written.
Advance = Callable[[int], None]
Tools = Callable[[Variant], dict[str, str]]
# What a format reads: a validated `Checkpoint`, or, for any architecture, a `CheckpointFolder`.
Opened = TypeVar("Opened", bound=CheckpointFolder)
Write = Callable[[Opened, ModelIdentity, Variant, ArtifactWriter, Advance], None]

# A written file, and the SHA-256 of each of its sections by name.
Check = Callable[[Path, Mapping[str, str]], None]


def _unchanged(variant: Variant) -> Variant:
    return variant


@dataclass(frozen=True)
class Format(Generic[Opened]):
    """One format: its variants and the function that writes one of them.

    `open` opens a checkpoint's folder for `write`. `tools` names the versions of the libraries that
    the output bytes depend on, `variant_tools` those that only some variants need. `options` are
    command-line options of this format alone; `customise(variant, **values)` puts what they say
    into the variant's recipe and name. `check` reopens a written file and compares it with the
    hashes of its sections; without it the format has no --verify. `engines` are other ways to make
    the same layout, by the value of --engine.
    """

    name: str
    title: str
    variants: tuple[Variant, ...]
    tools: dict[str, str]
    open: Callable[[Path], Opened]
    write: Write[Opened]
    variant_tools: Tools = lambda variant: {}
    options: tuple[click.Option, ...] = ()
    customise: Callable[..., Variant] = _unchanged
    check: Check | None = None
    engines: Mapping[str, Format[Any]] = field(default_factory=dict)

    def tools_of(self, variant: Variant) -> dict[str, str]:
        """Library versions that the variant's bytes depend on.

        Raises:
            InputError: such a library is not installed.
        """
        return {**self.tools, **self.variant_tools(variant)}

    def variant(self, name: str, **options: Any) -> Variant:
        """The variant of that name or alias, with the format's own options worked into it.

        Raises:
            InputError: unknown name; the message lists the known ones. A bad option.
        """
        for variant in self.variants:
            if name.lower() in (variant.name, *variant.aliases):
                return self.customise(variant, **options)
        known = ", ".join("=".join((v.name, *v.aliases)) for v in self.variants)
        raise InputError(f"{self.name} has no dtype {name!r}; choose from {known}")
