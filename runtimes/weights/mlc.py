"""Read MLC shards, from the format's description: records, bfloat16 storage, group quantisation.

Sources: tvm `contrib/tvmjs.py`, `load_tensor_cache`; mlc_llm
`quantization/group_quantization.py`, `GroupQuantize._dequantize`.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from edgeproof.artifact import Artifact
from edgeproof.artifact.json_file import read_json
from edgeproof.errors import DamagedExportError, InputError
from runtimes.mlc_index import index_path
from runtimes.weights.fused import Heads
from runtimes.weights.stored import StoredWeights, by_rows

READ_BYTES = 1 << 20
BF16_STORAGE = "f32-to-bf16"
DTYPES: dict[str, Any] = {
    "float16": np.float16,
    "float32": np.float32,
    "bfloat16": ml_dtypes.bfloat16,
    "uint32": np.uint32,
}
# Modules that model definitions call otherwise than transformers → transformers' name.
RENAMED = {
    "phi3": (
        (re.compile(r"^transformer\.h\."), "model.layers."),
        (re.compile(r"^transformer\.embd\."), "model.embed_tokens."),
        (re.compile(r"^transformer\."), "model."),
        (re.compile(r"\.ln\."), ".input_layernorm."),
        (re.compile(r"\.mixer\.qkv_proj\."), ".self_attn.qkv_proj."),
        (re.compile(r"\.mixer\.out_proj\."), ".self_attn.o_proj."),
    )
}
# The damage that a JSON file written by others can do to the code below.
MALFORMED = (KeyError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class Grouping:
    """Bits of a code, weights per scale.

    With `kn`, words and scales are stored [in, out], those of the embedding excepted.
    """

    bits: int
    size: int
    kn: bool = False


# What is quantised, and the dtype of scales, the records say; unquantised schemes need no entry.
GROUPINGS = {
    **dict.fromkeys(("q4f16_1", "q4f16_2", "q4f32_1", "q4bf16_1"), Grouping(4, 32)),
    "q4f16_0": Grouping(4, 32, kn=True),
    "q3f16_0": Grouping(3, 40, kn=True),
    "q3f16_1": Grouping(3, 40),
}


def read(artifact: Artifact) -> StoredWeights:
    """See `runtimes.formats.dequantise`.

    Raises:
        InputError: a damaged shard or index, or a scheme that this reader does not know.
    """
    stored = _stored(index_path(artifact.path))
    config_path = artifact.path / "mlc-chat-config.json"
    chat = read_json(config_path)
    try:
        config = chat["model_config"]
        heads, widths = Heads.of(config), _widths(config)
        grouping = GROUPINGS.get(chat["quantization"])
        renamed = RENAMED.get(chat["model_type"], ())
    except MALFORMED:
        raise DamagedExportError(f"{config_path}: not an MLC config") from None
    stored = {_renamed(name, renamed): reads for name, reads in stored.items()}
    sources: dict[str, Callable[[], np.ndarray]] = {}
    for name in stored:
        module, _, kind = name.rpartition(".")
        if kind in ("weight", "bias"):
            sources[name] = stored[name]
        elif kind == "q_weight":
            sources[f"{module}.weight"] = partial(
                _dequantised, artifact.path, stored, module, grouping, widths
            )
    return StoredWeights(sources, heads, artifact.path)


def _renamed(name: str, rules: Iterable[tuple[re.Pattern[str], str]]) -> str:
    for pattern, text in rules:
        name = pattern.sub(text, name)
    return name


def _dequantised(
    folder: Path,
    stored: Mapping[str, Callable[[], np.ndarray]],
    module: str,
    grouping: Grouping | None,
    widths: Mapping[str, int],
) -> np.ndarray:
    packed, scaled = stored[f"{module}.q_weight"], stored.get(f"{module}.q_scale")
    leaf = module.rpartition(".")[2]
    width = widths.get(leaf)
    if grouping is None or scaled is None or width is None:
        raise InputError(f"{folder}: {module} has no scales, or is stored in an unknown scheme")
    words, scales = packed(), scaled()
    if grouping.kn and leaf != "embed_tokens":
        words, scales = words.T, scales.T
    return by_rows(
        len(words), lambda rows: dequantise_groups(words[rows], scales[rows], grouping)[:, :width]
    )


def dequantise_groups(words: np.ndarray, scales: np.ndarray, grouping: Grouping) -> np.ndarray:
    """(code − m) × scale in the scales' dtype, as MLC's kernels compute it.

    `words` is uint32 [rows, words], the first code in the lowest bits; `scales` [rows, groups].
    Returns [rows, groups × size]: the padding of the last group is still there.
    """
    bits = grouping.bits
    shifts = np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits)
    codes = (words[..., None] >> shifts) & np.uint32((1 << bits) - 1)  # [rows, words, codes]
    steps = codes.astype(np.int8) - np.int8((1 << (bits - 1)) - 1)
    groups = steps.reshape(*scales.shape, grouping.size).astype(scales.dtype)
    return np.asarray((groups * scales[..., None]).reshape(len(words), -1))


def _stored(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    """What reads each record, as a loader gives it to the model (a view where that is free)."""
    tensors: dict[str, Callable[[], np.ndarray]] = {}
    try:
        for shard in read_json(path)["records"]:
            file = _checked(path.parent / Path(shard["dataPath"]).name, shard)
            for record in shard["records"]:
                tensors[record["name"]] = _record(file, record)
    except MALFORMED as error:
        raise DamagedExportError(f"{path}: malformed index ({error})") from None
    return tensors


def _checked(path: Path, shard: Mapping[str, Any]) -> Path:
    """The shard's file, whose bytes are those that the index tells of.

    Raises:
        InputError: it cannot be read, or they are others.
    """
    md5, size = hashlib.md5(usedforsecurity=False), 0
    try:
        with path.open("rb") as file:
            while block := file.read(READ_BYTES):
                md5.update(block)
                size += len(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if size != shard["nbytes"] or md5.hexdigest() != shard["md5sum"]:
        raise DamagedExportError(f"{path}: size or MD5 is not the index's")
    return path


def _record(path: Path, record: Mapping[str, Any]) -> Callable[[], np.ndarray]:
    """What reads one record, mapped anew each time; float32 stored as bfloat16 is widened."""
    begin, length, shape = record["byteOffset"], record["nbytes"], tuple(record["shape"])
    loaded = DTYPES[record["dtype"]]
    narrowed = record["format"] == BF16_STORAGE and loaded is np.float32
    stored = np.dtype(ml_dtypes.bfloat16 if narrowed else loaded)
    if begin < 0 or length != math.prod(shape) * stored.itemsize:
        raise ValueError(f"{record['name']}: {length} bytes for {list(shape)}")
    if begin + length > path.stat().st_size:
        raise ValueError(f"{record['name']}: beyond the end of {path.name}")

    def read() -> np.ndarray:
        if not length:
            return np.empty(shape, loaded)
        values = np.memmap(path, np.uint8, "r", begin, (length,)).view(stored)
        return np.asarray(values.reshape(shape).astype(loaded, copy=False))

    return read


def _widths(config: Mapping[str, Any]) -> dict[str, int]:
    """Input channels of each quantisable layer: they tell weights from padding."""
    hidden = int(config["hidden_size"])
    return {
        **dict.fromkeys(("embed_tokens", "lm_head", "qkv_proj", "c_attn", "gate_up_proj"), hidden),
        "o_proj": int(config["num_attention_heads"]) * int(config["head_dim"]),
        "down_proj": int(config["intermediate_size"]),
    }
