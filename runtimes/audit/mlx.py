"""What is in an MLX folder of any maker: config.json, and the headers of its safetensors files.

Source: https://github.com/ml-explore/mlx-lm, mlx_lm/utils.py (`load_model`, `infer_quant_config`).
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from edgeproof.artifact import MANIFEST, Facts, Precision, WeightStats
from edgeproof.artifact.json_file import read_json
from edgeproof.errors import InputError
from edgeproof.json_text import parse_json
from runtimes.audit.inspection import Inspection, is_setting, mostly
from runtimes.weights.safetensors_file import Entry, all_entries

CONFIG, INDEX, PATTERN = "config.json", "model.safetensors.index.json", "model*.safetensors"
QUANTIZATION, CODE = "quantization", "model_file"
TAG = "mlx"  # of the hub's repositories, and the format in a header
OTHERS = (".gguf", ".onnx")  # models beside it that are none of its files
TABLES = ("embed_tokens", "lm_head")
EMBEDDING = "model.embed_tokens.weight"  # packed along its columns
WORD_BITS, LENGTH, MOST = 32, 8, 100_000_000
FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
CLASSES = {"float32": Precision.FP32, "float16": Precision.FP16, "bfloat16": Precision.BF16}


def published(names: Iterable[str]) -> set[str]:
    """Of a repository's files, those that may stand for a model each: any checkpoint has them."""
    found = [PurePosixPath(name) for name in names]
    folders = {path.parent for path in found if path.match(PATTERN)}
    return {path.as_posix() for path in found if path.name == CONFIG and path.parent in folders}


def beside(model: str, names: Collection[str]) -> list[str]:
    """What a model of a repository is made of; nothing where it is of another format."""
    path = PurePosixPath(model)
    if path.name != CONFIG:
        return []
    near = (PurePosixPath(name) for name in names)
    own = (item for item in near if item.parent == path.parent)
    return [item.as_posix() for item in own if item.match(PATTERN) or is_setting(item.name)]


def further(path: Path) -> list[str]:
    """What a model's bytes name beside it: nothing, all its weights are loaded."""
    return []


def is_quantised(config: Path) -> bool:
    """Whether a config.json says that MLX's weights beside it are codes and scales."""
    try:
        said = read_json(config).get(QUANTIZATION)
    except InputError:
        return False
    return isinstance(said, dict) and "group_size" in said


def is_folder(folder: Path) -> bool:
    """Whether mlx_lm's converter made it: a checkpoint of transformers has these files too."""
    weights = sorted(folder.glob(PATTERN))
    if not weights or not all(path.is_file() for path in (*weights, folder / CONFIG)):
        return False
    try:
        with weights[0].open("rb") as file:
            begin = file.read(LENGTH)
            size = struct.unpack("<Q", begin)[0] if len(begin) == LENGTH else MOST
            header = parse_json(file.read(size).decode()) if size < MOST else {}
    except (OSError, ValueError, InputError):
        return False
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    made = isinstance(metadata, dict) and metadata.get("format") == TAG
    return made or is_quantised(folder / CONFIG)


def inspect(folder: Path) -> Inspection:
    """One folder.

    Raises:
        InputError: a file is missing, cut off or malformed.
    """
    config = read_json(folder / CONFIG)
    shards = sorted(folder.glob(PATTERN))
    stored = all_entries(shards)
    said = config.get(QUANTIZATION)
    settings: Mapping[str, Any] = said if isinstance(said, dict) else {}
    stats, linears = _counted(stored, settings)
    there = (item for item in folder.iterdir() if item.suffix not in OTHERS)
    listed = sorted(item.name for item in there if item.is_file())
    weights = [path.name for path in shards]
    files = [*weights, *(name for name in listed if name not in (*weights, MANIFEST))]
    return Inspection(
        format="mlx",
        name=folder.resolve().name,
        folder=folder,
        subject=folder,
        files=(*files,),
        suffix="",
        stats=stats,
        precision=mostly(linears),
        facts=Facts(activations=_activations(stored)),
        label=f"{settings['bits']}-bit" if "bits" in settings else None,
        says=_says(config, settings, files),
        warnings=(*_asked(folder, config, linears, settings),),
        broken=_broken(folder, config, stored),
        on_disk=sum((folder / name).stat().st_size for name in files),
        vocabulary=stored[EMBEDDING].shape[0] if EMBEDDING in stored else None,
    )


def _counted(
    stored: Mapping[str, Entry], settings: Mapping[str, Any]
) -> tuple[WeightStats, Counter[Precision]]:
    """Weights by type: of packed ones words and scales tell the bits."""
    stats, linears, everything = WeightStats(), Counter[Precision](), Counter[Precision]()
    for name, entry in stored.items():
        module, _, kind = name.rpartition(".")
        role = module.rpartition(".")[2] or name
        if kind in ("scales", "biases"):
            continue
        scales = stored.get(f"{module}.scales")
        if entry.dtype == "U32" and scales is not None:
            own = settings.get(module)
            group = int((own if isinstance(own, dict) else settings).get("group_size", 0))
            elements = math.prod(scales.shape) * group
            bits = math.prod(entry.shape) * WORD_BITS // max(1, elements)
            beside = stored.get(f"{module}.biases")
            size = entry.nbytes + scales.nbytes + (beside.nbytes if beside else 0)
            label, kind_of = f"{bits}-bit" if beside else f"{bits}-bit float", _class(bits)
        else:
            elements, size = math.prod(entry.shape), entry.nbytes
            label = FLOATS.get(entry.dtype, entry.dtype)
            kind_of = CLASSES.get(label, Precision.LOW_BIT)
        stats.add(label, elements, size, kind=role)
        everything[kind_of] += elements
        if len(entry.shape) > 1 and role not in TABLES:
            linears[kind_of] += elements
    return stats, linears or everything


def _class(bits: int) -> Precision:
    return Precision.EIGHT_BIT if bits == 8 else Precision.LOW_BIT


def _activations(stored: Mapping[str, Entry]) -> str | None:
    """The dtype of what is never quantised: the norms."""
    found = (entry.dtype for name, entry in stored.items() if name.endswith("norm.weight"))
    return next((FLOATS[dtype] for dtype in found if dtype in FLOATS), None)


def _says(
    config: Mapping[str, Any], settings: Mapping[str, Any], files: list[str]
) -> dict[str, str]:
    own = sum(isinstance(value, dict) for value in settings.values())
    return {
        "architecture": str(config.get("model_type")),
        "context": str(config.get("max_position_embeddings")),
        "quantization": (
            f"{settings.get('bits')} bits in groups of {settings.get('group_size')},"
            f" {settings.get('mode', 'affine')}" + (f", {own} layers otherwise" if own else "")
            if settings
            else "none"
        ),
        "files": ", ".join(name for name in files if name.endswith(".safetensors")),
    }


def _asked(
    folder: Path,
    config: Mapping[str, Any],
    linears: Counter[Precision],
    settings: Mapping[str, Any],
) -> Iterator[str]:
    if not (folder / "tokenizer.json").is_file():
        yield "no tokenizer.json"
    bits = settings.get("bits")
    if isinstance(bits, int) and mostly(linears) is not _class(bits):
        yield f"mislabelled: called {bits}-bit, but most weights are {mostly(linears).value}"


def _broken(folder: Path, config: Mapping[str, Any], stored: Mapping[str, Entry]) -> str | None:
    if config.get(CODE) is not None:
        return f"{CONFIG} names a {CODE}, code of its own that is never run"
    if not (folder / INDEX).is_file():
        return None
    placed = read_json(folder / INDEX).get("weight_map")
    missing = sorted(placed.keys() - stored.keys()) if isinstance(placed, dict) else []
    return f"{missing[0]} is missing, which its index names" if missing else None
