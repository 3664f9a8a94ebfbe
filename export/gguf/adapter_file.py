"""Write a LoRA as llama.cpp's GGUF adapter, for `llama-cli --lora`: it is added while running.

Source: https://github.com/ggml-org/llama.cpp, `convert_lora_to_gguf.py` (names, metadata) and
`src/llama-adapter.cpp`, which multiplies b·a with alpha / rank, one alpha for the whole file, and
has no other changes than low-rank ones. What PEFT scales otherwise (rsLoRA, patterns) is in b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeproof.checkpoints.origin import HUB_ID
from edgeproof.errors import InputError
from edgeproof.families import Parameter
from export.checkpoint import Checkpoint
from export.checkpoint.model_card import read_model_card
from export.gguf.authorship import origin_entries
from export.gguf.container import (
    ALIGNMENT,
    FLOAT32,
    STRING,
    UINT32,
    MetadataEntry,
    TensorInfo,
    encode_header,
)
from export.gguf.tensors import interleave_rotary_rows
from export.llamacpp.architectures import architecture_of
from export.llamacpp.tensors import rotary_heads, tensor_name
from export.sources.adapters.binding import TABLES, Adapter, bind, check_tables
from export.sources.adapters.card import licence_of
from export.sources.adapters.changes import LowRank
from export.sources.adapters.merging import untied_parameters

F32 = 0  # ggml's type, and llama.cpp's file type of that name
MERGE = "merge the adapter instead (--adapter of `edgeproof gguf`)"


@dataclass(frozen=True)
class _Tensor:
    name: str
    values: np.ndarray


def adapter_bytes(checkpoint: Checkpoint, adapter: Adapter) -> bytes:
    """The whole file; adapters are small.

    Args:
        checkpoint: the base, of which only config and names count.
        adapter: what is written, in float32.

    Raises:
        InputError: the adapter does not fit the base, or has what llama.cpp's cannot express.
    """
    parameters, tied = untied_parameters(checkpoint), checkpoint.config.tied
    found = bind(adapter, parameters, tied=tied)
    rows = {item.name: item.shape[0] for item in parameters.values() if item.role in TABLES}
    check_tables(adapter, found, rows)
    alpha = adapter.config.alpha or 1.0  # llama.cpp takes 0 for "not scaled"
    tensors: list[_Tensor] = []
    for name in sorted(found, key=list(parameters).index):
        for change in found[name]:
            if not isinstance(change, LowRank) or change.magnitude is not None:
                raise InputError(
                    f"{adapter.folder}: changes {name} by more than low-rank matrices, which"
                    f" llama.cpp's adapters cannot; {MERGE}"
                )
            if tied and parameters[name].role in TABLES:
                raise InputError(
                    f"{change.a.where}: in llama.cpp a tied head and the embedding have the same"
                    f" adapter; {MERGE}"
                )
            tensors += _pair(checkpoint, parameters[name], change, alpha)
    infos = [TensorInfo(t.name, t.values.shape, F32, t.values.nbytes) for t in tensors]
    parts = [encode_header(_metadata(checkpoint, adapter, alpha), infos)]
    for tensor in tensors:
        data = tensor.values.astype("<f4", copy=False).tobytes()
        parts.append(data + bytes(-len(data) % ALIGNMENT))
    return b"".join(parts)


def _pair(
    checkpoint: Checkpoint, parameter: Parameter, change: LowRank, alpha: float
) -> Sequence[_Tensor]:
    name = tensor_name(parameter)
    a, b = change.a.values(), change.b.values()
    usual = alpha / b.shape[1]
    if change.scaling != usual:
        b = b * np.float32(change.scaling / usual)
    heads = rotary_heads(parameter, checkpoint.config)
    if heads:
        b = interleave_rotary_rows(heads)([b])
    # Of an embedding the first is transposed: llama.cpp looks up rows of it.
    first = np.ascontiguousarray(a.T) if change.table else a
    return [_Tensor(f"{name}.lora_a", first), _Tensor(f"{name}.lora_b", np.ascontiguousarray(b))]


def _metadata(checkpoint: Checkpoint, adapter: Adapter, alpha: float) -> list[MetadataEntry]:
    base, licence = adapter.config.base, licence_of(read_model_card(adapter.folder))
    origin = {"base_model": base} if base and HUB_ID.fullmatch(base) else {}
    return [
        MetadataEntry("general.architecture", STRING, architecture_of(checkpoint.config).name),
        MetadataEntry("general.type", STRING, "adapter"),
        MetadataEntry("adapter.type", STRING, "lora"),
        *([MetadataEntry("general.license", STRING, licence)] if licence else []),
        *origin_entries(origin, checkpoint.parameter_count),
        MetadataEntry("adapter.lora.alpha", FLOAT32, alpha),
        MetadataEntry("general.file_type", UINT32, F32),
    ]
