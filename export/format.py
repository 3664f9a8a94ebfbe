"""What an export format offers to the command line and to plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import click

from edgeproof.artifact import ArtifactWriter, ModelIdentity, Variant
from edgeproof.errors import InputError
from export.checkpoint import CheckpointFolder

# Called with the number of checkpoint elements that were just written.
Advance = Callable[[int], None]
Tools = Callable[[Variant[Any]], dict[str, str]]
# What a format reads: a validated `Checkpoint`, or, for any architecture, a `CheckpointFolder`.
Opened = TypeVar("Opened", bound=CheckpointFolder)
Write = Callable[[Opened, ModelIdentity, Variant[Any], ArtifactWriter, Advance], None]

# The written files, each with the SHA-256 of its sections by name; a line on what was checked more.
Check = Callable[[Opened, Mapping[Path, Mapping[str, str]]], str]

# The engine that every format has: this program.
DIRECT = "direct"


def _variant_name(model: str, variant: Variant[Any]) -> str:
    return variant.name


def _unchanged(variant: Variant[Any]) -> Variant[Any]:
    return variant


def _complete(variant: Variant[Any], checkpoint: CheckpointFolder) -> Variant[Any]:
    return variant


@dataclass(frozen=True)
class Format(Generic[Opened]):
    """One format: its variants and the function that writes one of them.

    `open` opens a checkpoint's folder for `write`. `tools` names the versions of the libraries that
    the output bytes depend on, `variant_tools` those that only some variants need. `options` are
    command-line options of this format alone; `with_options(variant, **values)` puts what they say
    into the variant's recipe and name, `complete_from_checkpoint` replaces what of the recipe only
    the checkpoint can tell, before anything is written. `check` reopens written files and compares
    them with the hashes of their sections; without it the format has no --verify.
    `folder(model, variant)` names the artifact's folder, by the model's name in the manifest.
    `engines` are other ways to make the same layout, by the value of --engine.
    """

    name: str
    title: str
    variants: tuple[Variant[Any], ...]
    tools: dict[str, str]
    open: Callable[[Path], Opened]
    write: Write[Opened]
    variant_tools: Tools = lambda variant: {}
    options: tuple[click.Option, ...] = ()
    with_options: Callable[..., Variant[Any]] = _unchanged
    complete_from_checkpoint: Callable[[Variant[Any], Opened], Variant[Any]] = _complete
    check: Check[Opened] | None = None
    folder: Callable[[str, Variant[Any]], str] = _variant_name
    engines: Mapping[str, Format[Any]] = field(default_factory=dict)

    def engine(self, name: str) -> Format[Any]:
        """This format as that engine makes it.

        Raises:
            InputError: unknown engine.
        """
        if name != DIRECT and name not in self.engines:
            known = ", ".join((DIRECT, *self.engines))
            raise InputError(f"{self.name} has no engine {name!r}; choose from {known}")
        return self.engines.get(name, self)

    def tools_of(self, variant: Variant[Any]) -> dict[str, str]:
        """Library versions that the variant's bytes depend on.

        Raises:
            InputError: such a library is not installed.
        """
        return {**self.tools, **self.variant_tools(variant)}

    @property
    def option_names(self) -> list[str]:
        """The format's own options as a plan spells them: without their hyphens."""
        return [option.opts[0].removeprefix("--") for option in self.options]

    def parse_options(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """A plan's option → value table as arguments of `variant`, read as a command line is.

        True is an option without a value, a list is one that is repeated.

        Raises:
            InputError: a value that the option does not take.
        """
        arguments = [
            f"--{name}" if value is True else f"--{name}={value}"
            for name, values in table.items()
            for value in (values if isinstance(values, list) else [values])
            if value is not False
        ]
        parser = click.Command(self.name, params=list(self.options), add_help_option=False)
        try:
            return parser.make_context(self.name, arguments).params
        except click.UsageError as error:
            raise InputError(error.format_message()) from None

    def variant(self, name: str, **options: Any) -> Variant[Any]:
        """The variant of that name or alias, with the format's own options worked into it.

        Raises:
            InputError: unknown name; the message lists the known ones. A bad option.
        """
        for variant in self.variants:
            if name.lower() in (variant.name, *variant.aliases):
                return self.with_options(variant, **options)
        known = ", ".join("=".join((v.name, *v.aliases)) for v in self.variants)
        raise InputError(f"{self.name} has no dtype {name!r}; choose from {known}")
