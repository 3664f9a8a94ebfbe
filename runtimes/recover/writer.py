"""Write a recovered checkpoint: float32 safetensors, and the original's other files.

Invariant: a matrix on a grid holds exact products scale × level; norms hold float16 values. Weights
go into as many files as keep each below `SHARD_BYTES`, one layer in memory at a time beside them.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from edgeproof.checkpoints.tokenizer import tokenizer_files
from edgeproof.checkpoints.weight_files import INDEX, SINGLE
from edgeproof.families import Parameter
from runtimes.recover.store import write_file

SHARD_BYTES = 1_000_000_000
FLOAT_BYTES = 4
DTYPE_KEYS = ("dtype", "torch_dtype")
CARD, LICENCE = "README.md", "LICENSE"


def write_weights(folder: Path, parts: Iterable[Mapping[str, torch.Tensor]]) -> None:
    """Write tensors, float32, that come part by part; and an index if one file is not enough."""
    shards: list[list[str]] = []
    waiting: dict[str, torch.Tensor] = {}
    for part in parts:
        if waiting and _bytes(waiting) + _bytes(part) > SHARD_BYTES:
            shards.append(_write_shard(folder, len(shards), waiting))
            waiting = {}
        waiting |= part
    shards.append(_write_shard(folder, len(shards), waiting))
    _name(folder, shards)


def as_held(
    parts: Iterable[Mapping[str, torch.Tensor]], parameters: Sequence[Parameter]
) -> Iterator[dict[str, torch.Tensor]]:
    """Values of parameters as the tensors that hold them: a part has all of a tensor, or none."""
    for part in parts:
        held: dict[str, list[torch.Tensor]] = {}
        for p in parameters:
            if p.name in part:
                held.setdefault(p.holder, []).append(part[p.name])
        yield {name: rows[0] if len(rows) == 1 else torch.cat(rows) for name, rows in held.items()}


def copied(original: Path) -> list[Path]:
    """The files that a recovered checkpoint has as they are."""
    return [
        original / name
        for name in (*tokenizer_files(original), CARD, LICENCE)
        if (original / name).is_file()
    ]


def copy_rest(original: Path, folder: Path) -> None:
    """Copy config, tokenizer and what else belongs to the model; the config says float32."""
    for path in copied(original):
        target = folder / path.relative_to(original)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
    config = json.loads((original / "config.json").read_text("utf-8"))
    config |= {key: "float32" for key in DTYPE_KEYS if key in config}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def sync(folder: Path) -> None:
    """Make the files of a folder durable."""
    for path in filter(Path.is_file, folder.rglob("*")):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    return FLOAT_BYTES * sum(tensor.numel() for tensor in tensors.values())


def _write_shard(folder: Path, number: int, tensors: Mapping[str, torch.Tensor]) -> list[str]:
    # Adding zero leaves every value but −0, which level 0 of a negative scale gives.
    values = {name: (value + 0.0).contiguous() for name, value in tensors.items()}
    path = folder / f"{number}.safetensors"
    path.touch()
    mode = path.stat().st_mode  # as the umask has it
    write_file(path, values, {"format": "pt"})
    path.chmod(stat.S_IMODE(mode))
    return sorted(tensors)


def _name(folder: Path, shards: list[list[str]]) -> None:
    """Give the files their names, which have their number."""
    count = len(shards)
    files = [
        SINGLE if count == 1 else f"model-{number + 1:05}-of-{count:05}.safetensors"
        for number in range(count)
    ]
    for number, file in enumerate(files):
        (folder / f"{number}.safetensors").rename(folder / file)
    if count > 1:
        placed = {name: file for names, file in zip(shards, files, strict=True) for name in names}
        index = {"metadata": {}, "weight_map": placed}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
