"""Write one MLX artifact: config, tokenizer, weights, their index.

Invariant: weights stream through in blocks that fit into the CPU's cache; of the tensor being
written only scales and biases are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeproof.artifact import ArtifactWriter, Fallback, HashedFile, ModelIdentity, Variant
from edgeproof.errors import InputError
from edgeproof.families.context import bounded
from edgeproof.recovery import RECOVERY
from export.checkpoint import Checkpoint, recovered_grids
from export.checkpoint.safetensors_writer import PlannedTensor, encode_header
from export.context import within_context
from export.format import Advance
from export.mlx.config import config_json, write_tokenizer
from export.mlx.files import INDEX, METADATA, UINT8, UINT32, index_json, plan_files
from export.mlx.packing import pack, words_per_row
from export.mlx.recipe import Recipe
from export.mlx.schemes import (
    E2M1_CODES,
    EXACT,
    FLOATS,
    MICROSCALED,
    RECOVERED_BITS,
    affine,
    as_affine,
)
from export.rounding import Grid, Rounded, Rounder, rounder_of
from export.rounding.cast import FLOAT16, cast
from export.rounding.lattice import find_lattice
from export.targets import Target, check_bound

# Rounding makes a dozen passes over a block: at this size its temporaries stay in the L2 cache.
CACHE_ELEMENTS = 1 << 17
DTYPE_KEYS = ("torch_dtype", "dtype")


@dataclass(frozen=True)
class Item:
    """One parameter: what it is stored as. `bits` is None for floats, `asked` what it should be.

    `mode` as in `Recipe`.
    """

    target: Target
    dtype: np.dtype[Any]
    group: int
    bits: int | None
    asked: int | None
    mode: str | None = None

    @property
    def grid(self) -> Grid:
        """What its values are rounded to, where it is not a float."""
        assert self.bits is not None
        return MICROSCALED if self.mode else affine(self.bits, self.group, self.dtype)

    @property
    def module(self) -> str:
        """The module whose weight it is."""
        return self.target.name.removesuffix(".weight")

    @property
    def stored(self) -> tuple[PlannedTensor, ...]:
        """Its tensors in the file."""
        name, shape = self.target.name, self.target.shape
        if self.bits is None:
            return (PlannedTensor(name, self.dtype, shape),)
        rows, columns = shape
        groups = (rows, columns // self.group)
        words = PlannedTensor(name, UINT32, (rows, words_per_row(columns, self.bits)))
        if self.mode:
            return words, PlannedTensor(f"{self.module}.scales", UINT8, groups)
        return (
            words,
            PlannedTensor(f"{self.module}.scales", self.dtype, groups),
            PlannedTensor(f"{self.module}.biases", self.dtype, groups),
        )


def write(
    checkpoint: Checkpoint,
    identity: ModelIdentity,
    variant: Variant[Recipe],
    writer: ArtifactWriter,
    advance: Advance,
) -> None:
    """Write the variant's folder, as mlx_lm loads it.

    Raises:
        InputError: a value is not finite or overflows its type, mlx_lm does not compute the
            decoder, a tensor is not on the grid that it is to be stored on, or the importance
            matrix is another model's.
    """
    recipe = variant.recipe
    checkpoint = within_context(checkpoint, bounded(checkpoint.config))
    rounder = rounder_of(recipe.rounding, checkpoint.parameters)
    items = plan_items(checkpoint, recipe)
    matrices = {item.module: item.bits for item in items if len(item.target.shape) > 1}
    config = config_json(checkpoint, recipe.group, matrices, recipe.mode)
    groups = [item.stored for item in items]
    files = plan_files(groups)
    for file in files:
        with writer.open(file.name) as out:
            tensors = [tensor for number in file.groups for tensor in groups[number]]
            out.write(encode_header(tensors, METADATA))
            for number in file.groups:
                _write_item(out, items[number], checkpoint, rounder, advance)
                _count(writer, items[number])
    writer.write(INDEX, index_json(files, groups, identity.parameters))
    writer.write("config.json", config)
    write_tokenizer(checkpoint, writer)


def mlx_targets(checkpoint: Checkpoint) -> list[Target]:
    """Every tensor, under the checkpoint's own name, as the checkpoint has it."""
    targets = [Target(item.name, (item,), item.shape) for item in checkpoint.parameters]
    check_bound(targets, checkpoint.parameters)
    return targets


def plan_items(checkpoint: Checkpoint, recipe: Recipe) -> list[Item]:
    """What each parameter is stored as. Rows that do not divide into groups stay floats.

    Raises:
        InputError: recovery.json names no grid for a matrix, and that is what counts.
    """
    dtype, group = float_dtype(checkpoint, recipe), recipe.group or 1
    grids = recovered_grids(checkpoint) if recipe.recovered else {}
    items = []
    for target in mlx_targets(checkpoint):
        asked = recipe.bits if len(target.shape) > 1 else None
        if recipe.recovered:
            grid = grids.get(target.name)
            asked = None if grid is None else RECOVERED_BITS[grid]
        fits = target.shape[-1] % group == 0
        if recipe.recovered and asked is not None and not fits:
            raise InputError(
                f"{checkpoint.path / RECOVERY}: {target.name} has rows of {target.shape[-1]}"
                f" values, which do not divide into groups of {group}"
            )
        items.append(Item(target, dtype, group, asked if fits else None, asked, recipe.mode))
    return items


def float_dtype(checkpoint: Checkpoint, recipe: Recipe) -> np.dtype[Any]:
    """The dtype of scales, biases and what is not quantised.

    Like `mlx_lm.convert` the one that config.json names, else that of the embedding.
    """
    if recipe.activations is not None:
        return FLOATS[recipe.activations]
    if recipe.rounding.on_grid is not None:
        return FLOAT16
    for key in DTYPE_KEYS:
        named = checkpoint.raw_config.get(key)
        if isinstance(named, str) and named in FLOATS:
            return FLOATS[named]
    return checkpoint.stored_dtype(checkpoint.parameters[0].name)


def _write_item(
    out: HashedFile, item: Item, checkpoint: Checkpoint, rounder: Rounder, advance: Advance
) -> None:
    name = item.target.name
    if item.bits is None:
        with out.section(name):
            for block in checkpoint.blocks(item.target):
                out.write(_buffer(cast(block, item.dtype, name)))
                advance(block.size)
        return
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    with out.section(name):
        for rows in _few_rows(checkpoint, item.target, advance):
            rounded = _rounded(rows, item, rounder)
            codes = E2M1_CODES[rounded.codes] if item.mode else rounded.codes
            out.write(_buffer(pack(codes, item.bits, len(rows))))
            kept.append((rounded.scales, rounded.offsets))
    for number, part in enumerate(item.stored[1:]):
        with out.section(part.name):
            for arrays in kept:
                out.write(_buffer(arrays[number]))


def _few_rows(checkpoint: Checkpoint, target: Target, advance: Advance) -> Iterator[np.ndarray]:
    for block in checkpoint.blocks(target):
        step = max(1, CACHE_ELEMENTS // block.shape[1])
        for start in range(0, len(block), step):
            yield block[start : start + step]
        advance(block.size)


def _rounded(rows: np.ndarray, item: Item, rounder: Rounder) -> Rounded:
    """Codes of some rows; scales and biases in the item's dtype."""
    bits = item.bits
    assert bits is not None
    if not rounder.exact(item.target):
        return rounder.round(rows, item.grid, item.target)
    found = exactly(rows, bits, item.group, item.target.name)
    where = f"{item.target.name}, scale or bias of a group"
    scales, biases = (cast(part, item.dtype, where) for part in (found.scales, found.offsets))
    return Rounded(found.codes, scales, biases)


def exactly(rows: np.ndarray, bits: int, group: int, name: str) -> Rounded:
    """Codes, float16 scales and biases that give the values of the rows.

    Raises:
        InputError: they lie on no grid that codes of these bits hold.
    """
    for grid in (grid for grid in EXACT.get(bits, ()) if grid.block == group):
        found = find_lattice(rows, grid)
        if found.on_grid.all():
            stored = as_affine(found.rounded, grid)
            if np.isfinite(stored.offsets).all():
                return stored
    raise InputError(
        f"{name} does not lie on a grid that {bits} bits in groups of {group} hold exactly (those"
        " of Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, with --group-size 32); choose another --dtype, or leave"
        " --rounding out"
    )


def _buffer(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _count(writer: ArtifactWriter, item: Item) -> None:
    kind = item.dtype.name if item.bits is None else item.mode or f"q{item.bits}"
    fallback = None
    if item.asked != item.bits:
        row = item.target.shape[-1]
        fallback = Fallback(item.mode or f"q{item.asked}", kind, row, item.group)
    size = math.prod(item.target.shape)
    nbytes = sum(tensor.nbytes for tensor in item.stored)
    writer.stats.add(kind, size, nbytes, fallback=fallback)
