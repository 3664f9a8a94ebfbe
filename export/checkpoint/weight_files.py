"""Find the safetensors files of a checkpoint folder and which tensor lies in which file."""

from __future__ import annotations

import json
from pathlib import Path

from edgeproof.errors import InputError
from export.checkpoint.safetensors_file import SafetensorsFile

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def open_weights(folder: Path) -> list[SafetensorsFile]:
    """Open the single file, or every shard that the index names, in the index's order.

    Raises:
        InputError: no weights, only pickled weights, a missing shard, an index that points outside
            the folder, or a tensor that the index and its shard disagree about.
    """
    if (folder / INDEX).exists():
        return _open_shards(folder)
    if (folder / SINGLE).exists():
        return [SafetensorsFile(folder / SINGLE)]
    pickled = sorted(path.name for path in folder.glob("*.bin")) + sorted(
        path.name for path in folder.glob("*.pt*")
    )
    if pickled:
        raise InputError(
            f"{folder / pickled[0]}: pickled weights are never loaded, they can run code;"
            " save the model again with safe_serialization=True"
        )
    raise InputError(f"{folder}: no {SINGLE} and no {INDEX}")


def _open_shards(folder: Path) -> list[SafetensorsFile]:
    index = folder / INDEX
    try:
        weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
        placed = {str(tensor): str(shard) for tensor, shard in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{index}: malformed index; download it again") from None
    shards: dict[str, SafetensorsFile] = {}
    for name in dict.fromkeys(placed.values()):
        if name != Path(name).name or name in ("", ".", ".."):
            raise InputError(f"{index}: shard {name!r} is outside the checkpoint's folder")
        if not (folder / name).exists():
            raise InputError(f"{folder / name}: this shard is named by {INDEX} but missing")
        shards[name] = SafetensorsFile(folder / name)
    for tensor, name in placed.items():
        if tensor not in shards[name].entries:
            raise InputError(
                f"{folder / name}: tensor {tensor} is missing, {INDEX} expects it here"
            )
    return list(shards.values())
