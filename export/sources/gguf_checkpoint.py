"""Write a GGUF file's decoder as a Hugging Face checkpoint, streaming.

Invariants: every tensor of the parameter table is taken from exactly one tensor of the file, none
is left over; values are the file's own, dequantised, only moved; at most one block is in memory. A
norm of 1 + weight is stored as what x is multiplied with: the weight is that less 1, in float32, so
that what PyTorch adds up again is the stored value, where that is between ½ and 2²⁴.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeproof.errors import InputError
from edgeproof.families import DecoderConfig, Parameter, read_config
from edgeproof.files.atomic import write_atomic
from export.axes import AXES
from export.checkpoint.model_card import MODEL_CARD
from export.checkpoint.safetensors_writer import PlannedTensor, write_safetensors
from export.llamacpp.architectures import architecture_of
from export.llamacpp.tensors import ROPE_FREQS, ROPE_LONG, ROPE_SHORT, rotary_heads, tensor_name
from export.sources.gguf_card import model_card
from export.sources.gguf_config import generation_config, model_config, model_name
from export.sources.gguf_container import GgufFile, GgufTensor
from export.sources.gguf_splits import open_gguf
from export.sources.gguf_tokenizer import tokenizer_files
from export.sources.gguf_types import FLOATS, decode
from export.sources.permutation import Orders, free_orders

# 1 MiB as float32: decoding stays inside the processor's cache, which halves its time.
BLOCK_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class Move:
    """One tensor's way into the checkpoint: which stored rows and columns, in which order.

    `rows`, `columns` are index arrays into the stored rows and decoded columns; None is "as is". A
    tensor of one axis is a single row. `offset` is what the stored values have more, a norm's.
    """

    shape: tuple[int, ...]
    tensor: GgufTensor
    rows: np.ndarray | None
    columns: np.ndarray | None
    offset: float

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of what is written."""
        return FLOATS["F32"] if self.offset else self.tensor.storage.dtype


def write_checkpoint(gguf: Path, folder: Path, permutation_seed: str | None = None) -> str | None:
    """Convert a file into an empty folder; returns the name that the file gives the model.

    Raises:
        InputError: the file is damaged or not a supported decoder.
    """
    file = open_gguf(gguf)
    raw = model_config(file)
    try:
        config, parameters = read_config(raw)
    except InputError as error:
        raise InputError(f"{gguf}: {error}") from None
    moves = plan_moves(file, config, parameters, permutation_seed)
    documents = {
        "config.json": raw,
        "generation_config.json": generation_config(file.metadata),
        **tokenizer_files(file.metadata, config.max_positions),
    }
    for name, document in documents.items():
        write_atomic(folder / name, _json_bytes(document))
    card = model_card(file.metadata)
    if card is not None:
        write_atomic(folder / MODEL_CARD, card)
    write_safetensors(
        folder / "model.safetensors",
        [PlannedTensor(name, move.dtype, move.shape) for name, move in moves.items()],
        lambda name: move_blocks(file, moves[name]),
    )
    return model_name(file.metadata)


def plan_moves(
    file: GgufFile,
    config: DecoderConfig,
    parameters: tuple[Parameter, ...],
    permutation_seed: str | None,
) -> dict[str, Move]:
    """Bind every tensor of the checkpoint to its stored one, by name.

    Raises:
        InputError: a missing, misshapen or left-over tensor.
    """
    orders = {} if permutation_seed is None else free_orders(config, permutation_seed)
    left = {name: tensor for name, tensor in file.tensors.items() if name not in _tables(config)}
    held: dict[str, list[Parameter]] = {}
    for parameter in parameters:
        held.setdefault(parameter.within or parameter.name, []).append(parameter)
    moves = {}
    for name, parts in held.items():
        stored, shape = tensor_name(parts[0]), _joined_shape(parts)
        tensor = left.pop(stored, None)
        if tensor is None:
            raise InputError(f"{file.path}: tensor {stored} is missing")
        if tensor.shape != shape:
            raise InputError(
                f"{file.path}: tensor {stored} has shape {list(tensor.shape)},"
                f" the metadata asks for {list(shape)}"
            )
        moves[name] = _move(parts, tensor, config, orders)
    if left:
        raise InputError(
            f"{file.path}: unexpected tensor {min(left)}; only plain decoders are supported"
        )
    return moves


def move_blocks(file: GgufFile, move: Move) -> Iterator[np.ndarray]:
    """A checkpoint tensor's values, in blocks of rows.

    Raises:
        InputError: a value is NaN or infinite.
    """
    raw = file.raw_rows(move.tensor)
    step = max(1, BLOCK_ELEMENTS // move.tensor.shape[-1])
    for start in range(0, len(raw), step):
        part = slice(start, start + step)
        block = decode(
            raw[part] if move.rows is None else raw[move.rows[part]], move.tensor.storage
        )
        if not np.isfinite(block).all():
            raise InputError(
                f"{file.path}: tensor {move.tensor.name} has a NaN or infinite value; damaged file"
            )
        if move.offset:
            block = block.astype(np.float32) - np.float32(move.offset)
        yield block if move.columns is None else np.take(block, move.columns, axis=1)
    file.release(move.tensor)


def _tables(config: DecoderConfig) -> set[str]:
    """Tensors that are no parameters: what they say is in config.json."""
    return {ROPE_FREQS, *((ROPE_LONG, ROPE_SHORT) if architecture_of(config).long_rope else ())}


def _joined_shape(parts: Sequence[Parameter]) -> tuple[int, ...]:
    return (sum(part.shape[0] for part in parts), *parts[0].shape[1:])


def _move(
    parts: Sequence[Parameter], tensor: GgufTensor, config: DecoderConfig, orders: Orders
) -> Move:
    found = [_orders(part, config, orders) for part in parts]
    norm = config.structure.norms.get(parts[0].role)
    rows = None
    if len(tensor.shape) > 1 and any(order[0] is not None for order in found):
        starts = np.cumsum([0, *(part.shape[0] for part in parts[:-1])])
        rows = np.concatenate(
            [
                start + (np.arange(part.shape[0]) if order[0] is None else order[0])
                for part, order, start in zip(parts, found, starts, strict=True)
            ]
        )
    return Move(tensor.shape, tensor, rows, found[0][-1], norm.offset if norm else 0.0)


def _orders(parameter: Parameter, config: DecoderConfig, orders: Orders) -> list[np.ndarray | None]:
    """Of each axis; None where nothing moves."""
    found = [orders.get(axis) for axis in AXES[parameter.role]]
    heads = rotary_heads(parameter, config)
    if heads is not None:
        found[0] = _half_split_rows(heads, config)
    return found


def _half_split_rows(heads: int, config: DecoderConfig) -> np.ndarray:
    """Which stored row is each row of a query or key projection, or of its bias.

    llama.cpp rotates neighbouring rows (2j, 2j + 1) of a head, Hugging Face rows j and j + half;
    this undoes `LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py.
    """
    stored = np.arange(heads * config.head_dim).reshape(heads, config.head_dim // 2, 2)
    return np.asarray(stored.swapaxes(1, 2).reshape(-1))


def _json_bytes(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n"
