"""What is in a GGUF file of any maker. Keys and types: gguf's `constants.py`."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from gguf.constants import LlamaFileType

from edgeproof.artifact import Facts, Precision, WeightStats
from edgeproof.display import megabytes
from edgeproof.errors import InputError
from runtimes.audit.inspection import Inspection, NoModelError, mostly
from runtimes.audit.labels import fallbacks, label_of, misnomer
from runtimes.gguf_file import GgufTensor, read_file

SUFFIX = ".gguf"
SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
CLASSES = {
    "F64": Precision.FP32,
    "F32": Precision.FP32,
    "F16": Precision.FP16,
    "BF16": Precision.BF16,
    "Q8_0": Precision.EIGHT_BIT,
    "Q8_1": Precision.EIGHT_BIT,
    "Q8_K": Precision.EIGHT_BIT,
}
FLOATS = (Precision.FP32, Precision.FP16, Precision.BF16)
EMBEDDING, HEAD = "token_embd", "output"
DERIVED = ("rope_freqs", "rope_factors_long", "rope_factors_short")
ARCHITECTURE, TYPE = "general.architecture", "general.type"
# Key → what people call it, in this order; the first that is there of those with one name.
SAYS = {
    "general.name": "name",
    "general.architecture": "architecture",
    "general.author": "author",
    "general.organization": "organisation",
    "general.quantized_by": "quantised by",
    "general.repo_url": "repository",
    "general.source.url": "source",
    "general.source.huggingface.repository": "source",
    "general.license": "licence",
    "tokenizer.ggml.pre": "pre-tokenizer",
}
# `general.type` of what is no model; older projectors say it by their architecture only.
BESIDE_A_MODEL = {
    "adapter": "a LoRA adapter",
    "imatrix": "an importance matrix",
    "mmproj": "a projector of images or sound",
}
PROJECTOR = "clip"
IMATRIX = "quantize.imatrix."
TEMPLATE, TOKENS = "tokenizer.chat_template", "tokenizer.ggml.tokens"
ENDS = ("eos", "eot", "eom")
NO_TOKEN = "no such token"


def inspect(path: Path) -> Inspection:
    """One file, or all splits of which it is one.

    Raises:
        InputError: a split is missing, or a file is cut off or malformed.
        NoModelError: it is what is loaded beside a model.
    """
    paths = splits(path)
    files = [read_file(item) for item in paths]
    metadata = files[0][0]
    beside = "mmproj" if metadata.get(ARCHITECTURE) == PROJECTOR else metadata.get(TYPE)
    if isinstance(beside, str) and beside in BESIDE_A_MODEL:
        raise NoModelError(
            f"{path}: {BESIDE_A_MODEL[beside]}, no model; audit the file that it is loaded beside"
        )
    tensors = [tensor for _, stored in files for tensor in stored if _kind(tensor) not in DERIVED]
    if not tensors:
        raise InputError(f"{path}: a GGUF file without weights")
    stats, linears = WeightStats(), Counter[str]()
    for tensor in tensors:
        elements = math.prod(tensor.shape)
        stats.add(tensor.type.name, elements, tensor.nbytes, kind=_kind(tensor))
        if _linear(tensor):
            linears[tensor.type.name] += elements
    linears = linears or Counter({n: e["elements"] for n, e in stats.types.items()})
    counted = Counter[Precision]()
    for name, count in linears.items():
        counted[CLASSES.get(name, Precision.LOW_BIT)] += count
    precision = mostly(counted)
    stated = _stated_type(metadata)
    label = label_of(paths[0].name, stated)
    rows = [tensor.shape[-1] for tensor in tensors if _linear(tensor)]
    misnomers = (misnomer(name, linears, rows) for name in dict.fromkeys((label, stated)))
    fell = fallbacks(label, linears)
    return Inspection(
        format="gguf",
        name=_name(paths[0]),
        folder=path.parent,
        subject=paths[0],
        files=tuple(item.name for item in paths),
        suffix=SUFFIX,
        stats=stats,
        precision=precision,
        facts=Facts(),
        label=label,
        says={**_says(metadata), **_head(tensors), **({"fallbacks": fell} if fell else {})},
        warnings=(*filter(None, misnomers), *_tables(tensors, precision), *_lacks(metadata)),
        on_disk=sum(item.stat().st_size for item in paths),
        vocabulary=next((item.shape[0] for item in tensors if _kind(item) == EMBEDDING), None),
    )


def published(names: Iterable[str]) -> set[str]:
    """Of a repository's files, the models; one in splits by its first."""
    return {_split_names(name)[0] for name in names if name.endswith(SUFFIX)}


def beside(model: str, names: Collection[str]) -> list[str]:
    """What a model of a repository is made of; nothing where it is of another format."""
    found = _split_names(model) if model.endswith(SUFFIX) else []
    return [name for name in found if name in names]


def further(path: Path) -> list[str]:
    """What a model's bytes name beside it: nothing."""
    return []


def _split_names(name: str) -> list[str]:
    """All the files that a file of that name (POSIX) is one of, in order."""
    path = PurePosixPath(name)
    match = SPLIT.fullmatch(path.name)
    if match is None or not 1 <= int(match[2]) <= int(match[3]):
        return [name]
    each = range(1, int(match[3]) + 1)
    files = (f"{match[1]}-{number:05d}-of-{match[3]}{SUFFIX}" for number in each)
    return [path.with_name(file).as_posix() for file in files]


def first(path: Path) -> Path:
    """Of a file in splits the first one, where that is there; any other file itself."""
    found = path.with_name(_split_names(path.name)[0])
    return found if found.is_file() else path


def splits(path: Path) -> list[Path]:
    """The file, or all the files that it is one of, in order.

    Raises:
        InputError: one of them is missing.
    """
    match = SPLIT.fullmatch(path.name)
    if match is None:
        return [path]
    _, own, count = match.groups()
    if not 1 <= int(own) <= int(count):
        raise InputError(f"{path}: a split {own} of {count}; rename the file if it is none")
    names = _split_names(path.name)
    for name in names:
        if not (path.parent / name).is_file():
            raise InputError(f"{path.parent / name}: missing, one of the {int(count)} splits")
    return [path.parent / name for name in names]


def _name(path: Path) -> str:
    match = SPLIT.fullmatch(path.name)
    return match[1] if match else path.name.removesuffix(SUFFIX)


def _kind(tensor: GgufTensor) -> str:
    parts = tensor.name.split(".")
    if len(parts) < 2:
        return tensor.name
    return parts[-2] if parts[-1] == "weight" else f"{parts[-2]}_{parts[-1]}"


def _linear(tensor: GgufTensor) -> bool:
    return len(tensor.shape) > 1 and _kind(tensor) not in (EMBEDDING, HEAD)


def _stated_type(metadata: Mapping[str, Any]) -> str | None:
    """`general.file_type` by its name, as llama-quantize takes it."""
    try:
        name = LlamaFileType(metadata["general.file_type"]).name
    except (KeyError, ValueError):
        return None
    return name.removeprefix("ALL_").removeprefix("MOSTLY_") if name != "GUESSED" else None


def _says(metadata: Mapping[str, Any]) -> dict[str, str]:
    said: dict[str, str] = {}
    for key, name in SAYS.items():
        if key in metadata:
            said.setdefault(name, str(metadata[key]))
    architecture = metadata.get(ARCHITECTURE)
    if f"{architecture}.context_length" in metadata:
        said["context"] = str(metadata[f"{architecture}.context_length"])
    matrix = {key: metadata[key] for key in metadata if key.startswith(IMATRIX)}
    text = ", ".join(f"{key.removeprefix(IMATRIX)} {value}" for key, value in matrix.items())
    said["importance matrix"] = text or "no trace of one"
    said["chat template"] = _template(metadata)
    said["stop tokens"] = ", ".join(_ends(metadata)) or "none stated"
    return said


def _head(tensors: Sequence[GgufTensor]) -> dict[str, str]:
    found = (item for item in tensors if _kind(item) == HEAD and item.name.endswith(".weight"))
    for head in found:
        return {"head": f"a tensor of its own, {head.type.name}, {megabytes(head.nbytes)} MB"}
    return {"head": "the embedding"}


def _template(metadata: Mapping[str, Any]) -> str:
    text = metadata.get(TEMPLATE)
    return f"{len(text)} characters" if isinstance(text, str) else "none"


def _ends(metadata: Mapping[str, Any]) -> Iterator[str]:
    tokens = metadata.get(TOKENS) or []
    for end in ENDS:
        index = metadata.get(f"tokenizer.ggml.{end}_token_id")
        if isinstance(index, int):
            text = tokens[index] if 0 <= index < len(tokens) else NO_TOKEN
            yield f"{end} {index} ({text})"


def _tables(tensors: Sequence[GgufTensor], precision: Precision) -> Iterator[str]:
    """The head, or an embedding, that was left as it was while all else was quantised."""
    if precision in FLOATS:
        return
    for tensor in tensors:
        kind = _kind(tensor)
        if kind in (EMBEDDING, HEAD) and CLASSES.get(tensor.type.name) in FLOATS:
            what = "the head" if kind == HEAD else "the embedding"
            yield (
                f"{what} was left unquantised: {tensor.name} is {tensor.type.name},"
                f" {megabytes(tensor.nbytes)} MB"
            )


def _lacks(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Keys without which llama.cpp guesses, or that it cannot use."""
    yield from (f"stop token {end}" for end in _ends(metadata) if end.endswith(f"({NO_TOKEN})"))
    if TEMPLATE not in metadata:
        yield "no chat template: llama.cpp falls back on one of its own"
    pre = metadata.get("tokenizer.ggml.pre")
    if metadata.get("tokenizer.ggml.model") == "gpt2" and pre in (None, "default"):
        stated = "is 'default'" if pre else "is not stated"
        yield f"tokenizer.ggml.pre {stated}: llama.cpp splits text by a rule that no model has"
