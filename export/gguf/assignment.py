"""Which type each tensor is stored in where all types are written here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeproof.artifact import Fallback
from edgeproof.errors import InputError
from edgeproof.families import Role
from edgeproof.recovery import RECOVERY
from export.gguf.recipe import RECOVERED, Recipe
from export.gguf.storage import FALLBACK, TYPES, Layout
from export.targets import Target

VECTOR = TYPES["F32"]  # norms and biases, as in llama.cpp's converter
# Grid in recovery.json → the type that stores it.
OF_GRID = {"q4": "Q4_0", "q5": "Q5_0", "q8": "Q8_0", "iq4_nl": "IQ4_NL"}


@dataclass(frozen=True)
class Item:
    """A tensor, the type it is stored in, and the type that the recipe asks for."""

    target: Target
    type: Layout
    asked: Layout

    @property
    def nbytes(self) -> int:
        """Stored bytes, without padding."""
        return self.type.nbytes(self.target.shape)

    @property
    def kind(self) -> str:
        """What the tensor is in its layer: `attn_q`, `attn_q_bias`, `ffn_down` or `token_embd`."""
        *_, kind, ending = self.target.name.split(".")
        return kind if ending == "weight" else f"{kind}_{ending}"

    @property
    def fallback(self) -> Fallback | None:
        """Why it is not in the type that was asked for; None if it is."""
        if self.type == self.asked:
            return None
        row = self.target.shape[-1]
        return Fallback(self.asked.name, self.type.name, row, self.asked.block_size)


def assign(
    targets: Sequence[Target], recipe: Recipe, grids: Mapping[str, str], *, tied: bool
) -> list[Item]:
    """Give every tensor its type, with the precedence of llama-quantize.

    A tied embedding is also the output matrix and gets the head's type. In a recovered variant
    `grids` has each tensor's; one without is stored as float32.

    Raises:
        InputError: parameters that are one tensor in the file lie on several grids.
    """
    if recipe.linear == RECOVERED:
        return [_recovered(target, grids) for target in targets]
    items = []
    for target in targets:
        asked = TYPES[_asked(target, recipe, tied)] if len(target.shape) > 1 else VECTOR
        items.append(Item(target, asked if asked.fits(target.shape) else FALLBACK, asked))
    return items


def main_type(items: Sequence[Item]) -> str:
    """The type that stores most weights of matrices."""
    sizes: Counter[str] = Counter()
    for item in items:
        if len(item.target.shape) > 1:
            sizes[item.type.name] += math.prod(item.target.shape)
    return sizes.most_common(1)[0][0]


def _recovered(target: Target, grids: Mapping[str, str]) -> Item:
    found = {source.name: grids.get(source.name) for source in target.sources}
    if len(set(found.values())) > 1:
        named = ", ".join(f"{name} is {grid or 'on no grid'}" for name, grid in found.items())
        raise InputError(
            f"{RECOVERY}: {named}, and GGUF stores them as one tensor, {target.name}; recover the"
            " model with --format gguf or any"
        )
    grid = next(iter(found.values()), None)
    kind = VECTOR if grid is None else TYPES[OF_GRID[grid]]
    return Item(target, kind, kind)


def _asked(target: Target, recipe: Recipe, tied: bool) -> str:
    overrides: dict[Role | None, str | None] = {
        Role.EMBEDDING: recipe.embedding,
        Role.HEAD: recipe.output,
    }
    own = overrides.get(target.role)
    is_output = target.role is (Role.EMBEDDING if tied else Role.HEAD)
    rest = (recipe.output or recipe.head) if is_output else recipe.linear
    return own or recipe.override(target.name) or rest
