"""What an export format says, as one object: how its files are made, and how they are published.

What reading it takes is said on the other side, by `runtimes.formats.Reader`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, TypeVar

import click

from edgeproof.artifact import ArtifactWriter, ModelIdentity, Variant
from edgeproof.command import sharpen
from edgeproof.errors import InputError
from export.checkpoint import CheckpointFolder
from export.publication import Publication

# Called with the number of checkpoint elements that were just written.
Advance = Callable[[int], None]
Tools = Callable[[Variant[Any]], dict[str, str]]
# What a format reads: a validated `Checkpoint`, or, for any architecture, a `CheckpointFolder`.
Opened = TypeVar("Opened", bound=CheckpointFolder)
Write = Callable[[Opened, ModelIdentity, Variant[Any], ArtifactWriter, Advance], None]

# The engine that every format has: this program.
DIRECT = "direct"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        raise InputError(f"{package} is not installed; the export depends on it") from None


def _variant_name(model: str, variant: Variant[Any]) -> str:
    return variant.name


def _unchanged(variant: Variant[Any]) -> Variant[Any]:
    return variant


def _complete(variant: Variant[Any], checkpoint: CheckpointFolder) -> Variant[Any]:
    return variant


class Hint(str):
    """A check's line that is about this machine, not about the file: it is said once."""


@dataclass(frozen=True)
class Check(Generic[Opened]):
    """What `--verify` does with the files that were just written."""

    help: str
    """What it does, for `--help`."""
    run: Callable[[Opened, Mapping[Path, Mapping[str, str]]], str]
    """Reopens the files, each given with the SHA-256 of its sections by name, and compares them;
    a line on what was checked more, or a `Hint`. It raises InputError."""


@dataclass(frozen=True, kw_only=True)
class Exporter(Generic[Opened]):
    """One way to make a format's files; what has a default is for those that have such a thing."""

    name: str
    """The format's."""
    title: str
    """What it makes, or, of an engine, who makes it, in words."""
    variants: tuple[Variant[Any], ...]
    tools: tuple[str, ...]
    """The packages that the bytes of all variants depend on. Publishing does without them."""
    open: Callable[[Path], Opened]
    """Opens a checkpoint's folder for `write`."""
    write: Write[Opened]
    """Writes one variant."""
    check: Check[Opened] | None
    """None: the format has no --verify."""
    variant_tools: Tools = lambda variant: {}
    """The libraries that only some variants depend on."""
    options: tuple[click.Option, ...] = ()
    """Command-line options of its own; a plan's `[[variant]]` takes them as well."""
    with_options: Callable[..., Variant[Any]] = _unchanged
    """`with_options(variant, **values)` puts what they say into the variant's recipe and name."""
    for_checkpoint: Callable[[Variant[Any], Opened], Variant[Any]] = _complete
    """What a variant means for a checkpoint that says how it is to be stored; reads no weights."""
    complete_from_checkpoint: Callable[[Variant[Any], Opened], Variant[Any]] = _complete
    """Replaces what of the recipe only the checkpoint can tell, before anything is written."""
    folder: Callable[[str, Variant[Any]], str] = _variant_name
    """The name of the artifact's folder, by the model's name in the manifest and the variant."""

    def tools_of(self, variant: Variant[Any]) -> dict[str, str]:
        """Library versions that the variant's bytes depend on.

        Raises:
            InputError: such a library is not installed.
        """
        return {name: _version(name) for name in self.tools} | self.variant_tools(variant)

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
        sharpen(self.options)
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


@dataclass(frozen=True)
class RecoveredDtypes:
    """The variants of a format that store a recovered checkpoint."""

    names: Mapping[str, str]
    """dtype as it is asked for → the variant's name."""
    mixes: bool
    """Whether it stores several grids of a recovery, so that there is a size to choose."""


@dataclass(frozen=True, kw_only=True)
class Format(Exporter[Opened]):
    """One format: how this program makes it, who else can, and how its exports are published."""

    example: str
    """A command line that exports to it, for its help."""
    engines: Mapping[str, Exporter[Any]]
    """Other ways to make the same layout, by the value of --engine."""
    publication: Publication
    runtimes: tuple[str, ...] = ()
    """The runtimes beside its usual one, by the names of its `Reader`; a plan's `runtime`."""
    recovered: RecoveredDtypes | None = None
    """What a plan's `recover` makes; None: the format stores no recovered checkpoint as it is."""

    def engine(self, name: str) -> Exporter[Any]:
        """What makes the format with that engine.

        Raises:
            InputError: unknown engine.
        """
        if name != DIRECT and name not in self.engines:
            known = ", ".join((DIRECT, *self.engines))
            raise InputError(f"{self.name} has no engine {name!r}; choose from {known}")
        return self.engines.get(name, self)
