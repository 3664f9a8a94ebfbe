"""Write one MLC artifact: chat config, tokenizer, shards, their index, WebLLM's record.

Invariant: weights stream through in blocks that fit into the CPU's cache; of the tensor being
written only the scales are kept, 1/16 byte per weight, and its codes where they are transposed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgeproof.artifact import ArtifactWriter, ModelIdentity, Variant
from edgeproof.families import DecoderConfig
from edgeproof.families.context import bounded
from export.checkpoint import Checkpoint
from export.context import within_context
from export.format import Advance
from export.mlc.app_record import FILE as APP_FILE
from export.mlc.app_record import app_config, library_file, mlc_name, runs_in_webllm
from export.mlc.chat_config import write_chat_config
from export.mlc.looking import check_recovered
from export.mlc.model_config import check_structure
from export.mlc.model_library import check_compiled_for, read_model_library
from export.mlc.packing import pack, words_per_group
from export.mlc.parameters import mlc_targets
from export.mlc.recipe import MODEL_LIB, Recipe
from export.mlc.schemes import Scheme
from export.mlc.shards import ShardFiles, StoredArray, plan_shards, write_index
from export.rounding import Grid, Rounder, rounder_of
from export.rounding.cast import cast
from export.targets import Target, streamable

# Rounding makes a dozen passes over a block: at this size its temporaries stay in the L2 cache.
CACHE_ELEMENTS = 1 << 17
OPTION = f"--{MODEL_LIB}"
UINT32 = np.dtype(np.uint32)

log = logging.getLogger(__name__)


def write(
    checkpoint: Checkpoint,
    identity: ModelIdentity,
    variant: Variant[Recipe],
    writer: ArtifactWriter,
    advance: Advance,
) -> None:
    """Write the checkpoint in the variant's scheme.

    Raises:
        InputError: a non-finite value, one that overflows the model dtype, a decoder that MLC does
            not compute, a chat template that MLC cannot express, or a model library or an
            importance matrix of another model.
    """
    checkpoint = within_context(checkpoint, bounded(checkpoint.config))
    check_structure(checkpoint.config)
    recipe, scheme = variant.recipe, variant.recipe.scheme
    rounder = rounder_of(recipe.rounding, checkpoint.parameters)
    targets = mlc_targets(checkpoint)
    if recipe.recovered:
        check_recovered(checkpoint, targets, scheme)
    arrays = {target.name: stored_arrays(target, scheme) for target in targets}
    ordered = [array for group in arrays.values() for array in group]
    _write_app(checkpoint.config, mlc_name(identity.name, variant), recipe, ordered, writer)
    write_chat_config(checkpoint, scheme.name, writer)
    with ShardFiles(writer, plan_shards(ordered)) as files:
        for target in targets:
            grid = scheme.grid_of(target.role)
            as_it_is = grid is not None and rounder.exact(target)
            dtype = None if as_it_is else scheme.dtype
            blocks = _cast_blocks(checkpoint, target, dtype, advance)
            if grid is None:
                _append_plain(files, arrays[target.name][0], blocks)
            else:
                packed = (_packed(rows, grid, target, rounder) for rows in blocks)
                kn = target.role in scheme.transposed
                _append_quantised(files, arrays[target.name], packed, transposed=kn)
            _count(writer, target, scheme, arrays[target.name])
        records = files.records()
    write_index(writer, ordered, records, identity.parameters)


def stored_arrays(target: Target, scheme: Scheme) -> tuple[StoredArray, ...]:
    """The records of a parameter: itself, or its packed codes and its scales."""
    grid = scheme.grid_of(target.role)
    if grid is None:
        return (StoredArray(target.name, target.shape, scheme.dtype, scheme.raw),)
    rows, columns = target.shape
    groups = grid.blocks(columns)
    words = groups * words_per_group(grid)
    module = target.name.removesuffix(".weight")
    shapes = ((rows, words), (rows, groups))
    if target.role in scheme.transposed:
        shapes = ((words, rows), (groups, rows))
    return (
        StoredArray(f"{module}.q_weight", shapes[0], UINT32, scheme.raw),
        StoredArray(f"{module}.q_scale", shapes[1], scheme.dtype, scheme.raw),
    )


def _write_app(
    config: DecoderConfig,
    identifier: str,
    recipe: Recipe,
    arrays: Sequence[StoredArray],
    writer: ArtifactWriter,
) -> None:
    """webllm-model.json, and the model library once it is not known not to fit."""
    if not runs_in_webllm(recipe.scheme):
        return
    library = None
    content = recipe.library
    if content is not None:
        library = read_model_library(content, OPTION)
        if library.warning is not None:
            log.warning("%s: %s", OPTION, library.warning)
        if library.facts is not None:
            check_compiled_for(library.facts, config, recipe.scheme.name, arrays, OPTION)
        writer.write(library_file(identifier), content)
    text = app_config(identifier, config, recipe.scheme, arrays, library, recipe.model_url)
    writer.write(APP_FILE, text)


def _cast_blocks(
    checkpoint: Checkpoint, target: Target, dtype: np.dtype[Any] | None, advance: Advance
) -> Iterator[np.ndarray]:
    """Rows of the target in the model dtype, or as they are for None, a few at a time."""
    for part in streamable(target):
        for block in checkpoint.blocks(part):
            step = max(1, CACHE_ELEMENTS // math.prod(block.shape[1:]))
            for start in range(0, len(block), step):
                rows = block[start : start + step]
                yield rows if dtype is None else cast(rows, dtype, part.origin)
            advance(block.size)


def _append_plain(files: ShardFiles, array: StoredArray, blocks: Iterator[np.ndarray]) -> None:
    for block in blocks:
        files.append(array.name, cast(block, array.disk_dtype, array.name))


def _packed(
    rows: np.ndarray, grid: Grid, target: Target, rounder: Rounder
) -> tuple[np.ndarray, np.ndarray]:
    """Words and scales [rows, …] of some rows of the target."""
    count, columns = rows.shape
    rounded = rounder.round(rows, grid, target)
    words = pack(rounded.zero_padded(columns), grid).reshape(count, -1)
    return words, rounded.scales.reshape(count, -1)


def _append_quantised(
    files: ShardFiles,
    arrays: tuple[StoredArray, ...],
    packed: Iterator[tuple[np.ndarray, np.ndarray]],
    *,
    transposed: bool,
) -> None:
    """Words and scales, block of rows by block of rows; the scales follow after all words."""
    words_array, scales_array = arrays
    kept_words, kept_scales = [], []
    for words, scales in packed:
        if transposed:  # its first row on disk needs the last block
            kept_words.append(words)
        else:
            files.append(words_array.name, words)
        kept_scales.append(scales)
    if transposed:
        kept_words = [_transposed(kept_words)]
        kept_scales = [_transposed(kept_scales)]
    for array, parts in ((words_array, kept_words), (scales_array, kept_scales)):
        for part in parts:
            files.append(array.name, part)


def _transposed(blocks: list[np.ndarray]) -> np.ndarray:
    """Blocks of rows as one matrix [columns, rows]."""
    return np.ascontiguousarray(np.concatenate(blocks).T)


def _count(
    writer: ArtifactWriter, target: Target, scheme: Scheme, arrays: tuple[StoredArray, ...]
) -> None:
    quantised = scheme.grid_of(target.role) is not None
    kind = scheme.name if quantised else scheme.disk_dtype.name
    writer.stats.add(kind, math.prod(target.shape), sum(array.nbytes for array in arrays))
