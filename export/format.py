"""What an export format offers to the command line and to plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from export.artifact import ArtifactWriter, ModelIdentity, Variant
from export.checkpoint import Checkpoint
from export.errors import InputError

# Called with the number of checkpoint elements that were just written.
Advance = Callable[[int], None]
Tools = Callable[[Variant], dict[str, str]]
Write = Callable[[Checkpoint, ModelIdentity, Variant, ArtifactWriter, Advance], None]


@dataclass(frozen=True)
class Format:
    """One format: its variants and the function that writes one of them.

    `tools` names the versions of the libraries that the output bytes depend on, `variant_tools`
    those that only some variants need.
    """

    name: str
    title: str
    variants: tuple[Variant, ...]
    tools: dict[str, str]
    write: Write
    variant_tools: Tools = lambda variant: {}

    def tools_of(self, variant: Variant) -> dict[str, str]:
        """Library versions that the variant's bytes depend on.

        Raises:
            InputError: such a library is not installed.
        """
        return {**self.tools, **self.variant_tools(variant)}

    def variant(self, name: str) -> Variant:
        """The variant of that name or alias.

        Raises:
            InputError: unknown name; the message lists the known ones.
        """
        for variant in self.variants:
            if name.lower() in (variant.name, *variant.aliases):
                return variant
        known = ", ".join("=".join((v.name, *v.aliases)) for v in self.variants)
        raise InputError(f"{self.name} has no dtype {name!r}; choose from {known}")
