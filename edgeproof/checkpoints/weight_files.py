"""Which safetensors files of a checkpoint's folder hold its weights.

Source: transformers `modeling_utils.py`, `_get_resolved_checkpoint_files`: the single file counts
wherever there is one, whatever an index beside it says; else the shards that the index names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeproof.checkpoints.json_object import read_object
from edgeproof.errors import InputError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class WeightFiles:
    """`paths` hold the weights, in order; `placed` says which tensor the index expects in which.

    `index` is None, and `placed` empty, for a single file. `left_out` are names of other weights in
    the folder, which transformers does not load either.
    """

    paths: tuple[Path, ...]
    index: Path | None
    placed: dict[str, Path]
    left_out: tuple[str, ...]

    @property
    def note(self) -> str | None:
        """What users should know of the files that do not count."""
        if not self.left_out:
            return None
        used = self.index or self.paths[0]
        return (
            f"{used.parent}: the weights are those of {used.name}, as in transformers;"
            f" left out: {', '.join(self.left_out)}"
        )


def weight_files(folder: Path) -> WeightFiles:
    """The files that count. Opens none of them but the index.

    Raises:
        InputError: no weights, only an adapter or pickled ones, a missing shard, or an index that
            is malformed or points outside the folder.
    """
    single, index = folder / SINGLE, folder / INDEX
    if single.exists():
        return WeightFiles((single,), None, {}, _others(folder, {SINGLE}))
    if index.exists():
        placed = _placed(index)
        paths = tuple(dict.fromkeys(placed.values()))
        return WeightFiles(paths, index, placed, _others(folder, {INDEX, *(p.name for p in paths)}))
    raise _absent(folder)


def adapter_of(folder: Path) -> str | None:
    """A line that says what an adapter's folder is; None for another."""
    path = folder / ADAPTER
    if not path.exists():
        return None
    try:
        base = read_object(path).get("base_model_name_or_path")
    except InputError:
        base = None
    return (
        f"{folder}: an adapter of {base or 'another model'}, not a model; the exporters merge it:"
        f" --model {base or 'BASE'} --adapter {folder}"
    )


def _others(folder: Path, counted: set[str]) -> tuple[str, ...]:
    found = {path.name for path in folder.glob("model*.safetensors")}
    found |= {INDEX} if (folder / INDEX).exists() else set()
    return tuple(sorted(found - counted))


def _placed(index: Path) -> dict[str, Path]:
    try:
        weight_map = read_object(index)["weight_map"]
        named = {str(tensor): str(shard) for tensor, shard in weight_map.items()}
    except (InputError, KeyError, AttributeError):
        raise InputError(f"{index}: malformed index; download it again") from None
    for name in dict.fromkeys(named.values()):
        if name != Path(name).name or name in ("", ".", ".."):
            raise InputError(f"{index}: shard {name!r} is outside the checkpoint's folder")
        if not _there(index.parent / name):
            raise InputError(f"{index.parent / name}: this shard is named by {INDEX} but missing")
    if not named:
        raise InputError(f"{index}: names no shard; download it again")
    return {tensor: index.parent / name for tensor, name in named.items()}


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a name, or a NUL in it
        return False


def _absent(folder: Path) -> InputError:
    adapter = adapter_of(folder)
    if adapter:
        return InputError(adapter)
    pickled = sorted(path.name for path in folder.glob("*.bin")) + sorted(
        path.name for path in folder.glob("*.pt*")
    )
    if pickled:
        return InputError(
            f"{folder / pickled[0]}: pickled weights are never loaded, they can run code;"
            " save the model again with safe_serialization=True"
        )
    return InputError(f"{folder}: no {SINGLE} and no {INDEX}")
