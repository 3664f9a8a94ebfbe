"""What is in an MLC folder of any maker: mlc-chat-config.json and the index of its shards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from edgeproof.artifact import MANIFEST, Facts, Precision, WeightStats
from edgeproof.artifact.json_file import read_json
from edgeproof.errors import InputError
from runtimes.audit.inspection import Inspection, is_setting, mostly
from runtimes.mlc_index import NAME, OLD_NAME, index_path
from runtimes.weights.mlc import BF16_STORAGE, GROUPINGS

MALFORMED = (KeyError, TypeError, ValueError, AttributeError)
CONFIG, APP, LIBRARY = "mlc-chat-config.json", "webllm-model.json", ".wasm"
TABLES = ("embed_tokens", "lm_head")
CLASSES = {
    "float32": Precision.FP32,
    "float16": Precision.FP16,
    "bfloat16": Precision.BF16,
    "8-bit": Precision.EIGHT_BIT,
}


def published(names: Iterable[str]) -> set[str]:
    """Of a repository's files, those that stand for a model each."""
    return {name for name in names if PurePosixPath(name).name == CONFIG}


def beside(model: str, names: Collection[str]) -> list[str]:
    """What is needed of a repository before a model's index can be read; of another's nothing."""
    parent = PurePosixPath(model).parent
    if not published([model]):
        return []
    return [name for name in names if PurePosixPath(name).parent == parent and is_setting(name)]


def further(path: Path) -> list[str]:
    """The shards that a model's index names; none where it cannot be read, which `inspect` says."""
    if path.name != CONFIG:
        return []
    try:
        shards = [str(shard["dataPath"]) for shard in read_json(index_path(path.parent))["records"]]
    except (InputError, *MALFORMED):
        return []
    return [name for name in shards if PurePosixPath(name).name == name]


def inspect(folder: Path, called: str) -> Inspection:
    """One folder, and what people call it.

    Raises:
        InputError: its settings or its index are missing or malformed.
    """
    chat, index_file = read_json(folder / CONFIG), index_path(folder)
    if not index_file.is_file():
        raise InputError(f"{index_file}: missing, the index of the weights that {CONFIG} is of")
    try:
        shards = read_json(index_file)["records"]
        records = [record for shard in shards for record in shard["records"]]
        stats, counted = _counted(records, str(chat.get("quantization")))
        names = {shard["dataPath"]: int(shard["nbytes"]) for shard in shards}
    except MALFORMED as error:
        raise InputError(f"{index_file}: malformed ({type(error).__name__}: {error})") from None
    listed = sorted(item.name for item in folder.iterdir() if item.is_file())
    first = (index_file.name, MANIFEST)
    files = [index_file.name, *(name for name in listed if name not in first)]
    scheme = str(chat.get("quantization"))
    return Inspection(
        format="mlc",
        name=called,
        folder=folder,
        subject=folder,
        files=(*files,),
        suffix="",
        stats=stats,
        precision=mostly(counted),
        facts=Facts(activations=_activations(records)),
        label=scheme,
        says=_says(chat, files),
        warnings=(*_misnamed(scheme, counted), *_asked(folder, chat)),
        broken=_broken(folder, names),
        on_disk=sum((folder / name).stat().st_size for name in files),
        vocabulary=_vocabulary(chat),
    )


def _vocabulary(chat: Mapping[str, Any]) -> int | None:
    """As its runtimes reckon with it."""
    model = chat.get("model_config")
    size = model.get("vocab_size") if isinstance(model, dict) else None
    return size if isinstance(size, int) else None


def _counted(records: list[dict[str, Any]], scheme: str) -> tuple[WeightStats, Counter[Precision]]:
    """Weights by type; packed words hold so many codes as the scheme's name says."""
    stats, linears, everything = WeightStats(), Counter[Precision](), Counter[Precision]()
    bits = GROUPINGS[scheme].bits if scheme in GROUPINGS else 4
    for record in records:
        module, _, kind = record["name"].rpartition(".")
        count, size = math.prod(record["shape"]), int(record["nbytes"])
        role = module.rpartition(".")[2] or record["name"]
        if kind == "q_scale":
            stats.add(f"{bits}-bit", 0, size, kind=role)
            stats.types[f"{bits}-bit"]["tensors"] -= 1
            continue
        packed = kind == "q_weight"
        name = f"{bits}-bit" if packed else _stored(record)
        elements = count * (32 // bits) if packed else count
        stats.add(name, elements, size, kind=role)
        everything[CLASSES.get(name, Precision.LOW_BIT)] += elements
        if len(record["shape"]) > 1 and role not in TABLES:
            linears[CLASSES.get(name, Precision.LOW_BIT)] += elements
    return stats, linears or everything


def _activations(records: list[dict[str, Any]]) -> str | None:
    """The dtype of what no scheme rounds: the norms."""
    found = (r["dtype"] for r in records if r["name"].endswith("norm.weight"))
    return next(map(str, found), None)


def _stored(record: Mapping[str, Any]) -> str:
    """A float32 that is stored as bfloat16 has that one's values."""
    narrow = record.get("format") == BF16_STORAGE and record["dtype"] == "float32"
    return "bfloat16" if narrow else str(record["dtype"])


def _broken(folder: Path, names: Mapping[str, int]) -> str | None:
    for name, size in names.items():
        path = folder / name
        if Path(name).name != name:
            return f"its index names a shard outside the folder: {name}"
        if not path.is_file():
            return f"{name} is missing, which its index names"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes, its index says {size:,}"
    return None


def _says(chat: Mapping[str, Any], files: list[str]) -> dict[str, str]:
    template = chat.get("conv_template")
    known = template if isinstance(template, dict) else {}
    return {
        "architecture": str(chat.get("model_type")),
        "context": str(chat.get("context_window_size")),
        "chat template": str(known.get("name", template)) if template else "none",
        "stop tokens": str(known.get("stop_token_ids", "none stated")),
        "model library": ", ".join(n for n in files if n.endswith(LIBRARY)) or "not in the folder",
    }


def _misnamed(scheme: str, counted: Counter[Precision]) -> Iterator[str]:
    floats = {"q0f16": Precision.FP16, "q0f32": Precision.BF16, "q0bf16": Precision.BF16}
    meant = floats.get(scheme, Precision.LOW_BIT)
    found = mostly(counted)
    if meant is not found and not (scheme == "q0f32" and found is Precision.FP32):
        yield f"mislabelled: called {scheme}, but most weights are of the class {found.value}"


def _asked(folder: Path, chat: Mapping[str, Any]) -> Iterator[str]:
    """What MLC's loaders ask for and do not find."""
    for name in chat.get("tokenizer_files") or ():
        if not (folder / str(name)).is_file():
            yield f"{CONFIG} names {name}, which is missing"
    for name, when in ((NAME, "since"), (OLD_NAME, "before")):
        if not (folder / name).is_file():
            yield f"no {name}, which WebLLM asks for {when} 0.2.79"
