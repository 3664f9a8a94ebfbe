"""Which type each tensor is stored in where all types are written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeproof.artifact import Fallback
from edgeproof.families import Role
from export.gguf.recipe import Recipe
from export.gguf.storage import FALLBACK, TYPES, Layout
from export.targets import Target

VECTOR = TYPES["F32"]  # norms and biases, as in llama.cpp's converter


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


def assign(targets: Sequence[Target], recipe: Recipe, *, tied: bool) -> list[Item]:
    """Give every tensor its type, with the precedence of llama-quantize.

    A tied embedding is also the output matrix and gets the head's type.
    """
    items = []
    for target in targets:
        asked = TYPES[_asked(target, recipe, tied)] if len(target.shape) > 1 else VECTOR
        items.append(Item(target, asked if asked.fits(target.shape) else FALLBACK, asked))
    return items


def _asked(target: Target, recipe: Recipe, tied: bool) -> str:
    overrides: dict[Role | None, str | None] = {
        Role.EMBEDDING: recipe.embedding,
        Role.HEAD: recipe.output,
    }
    own = overrides.get(target.role)
    is_output = target.role is (Role.EMBEDDING if tied else Role.HEAD)
    rest = (recipe.output or recipe.head) if is_output else recipe.linear
    return own or recipe.override(target.name) or rest
