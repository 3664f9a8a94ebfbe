"""What is in an ONNX graph of any maker, and whether its loaders find what they ask for.

Layouts: transformers.js (`onnx/model_q4.onnx` …, settings in config.json), Optimum and ONNX Runtime
GenAI (a graph beside the settings). Operators' weights: `runtimes.weights.onnx`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from edgeproof.artifact import Facts, Precision, WeightStats
from edgeproof.checkpoints.json_object import read_object
from edgeproof.display import printable
from edgeproof.errors import InputError
from runtimes.audit.inspection import Inspection, NoModelError, is_setting, mostly
from runtimes.said import GENAI, config_of

SUFFIX = ".onnx"
FOLDER = "onnx"  # transformers.js's
MOST_CHUNKS = 100  # files of external data: transformers.js has no more of a graph
CONFIG, GENERATION = "config.json", "generation_config.json"
TOKENIZER, SETTINGS, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
NEEDED = ((CONFIG, GENAI), (TOKENIZER,))  # of each one
CLASSES = {
    "float64": Precision.FP32,
    "float32": Precision.FP32,
    "float16": Precision.FP16,
    "bfloat16": Precision.BF16,
    "8-bit": Precision.EIGHT_BIT,
    "int8": Precision.EIGHT_BIT,
    "uint8": Precision.EIGHT_BIT,
}
# transformers.js's dtype, as a graph's file name ends → the class that it stands for.
LABELS = {
    "fp16": Precision.FP16,
    "int8": Precision.EIGHT_BIT,
    "uint8": Precision.EIGHT_BIT,
    "quantized": Precision.EIGHT_BIT,
    "q4": Precision.LOW_BIT,
    "q4f16": Precision.LOW_BIT,
    "bnb4": Precision.LOW_BIT,
}
LABEL = re.compile(r"_([a-z0-9]+)$")
ADDED, EXTERNAL = "transformers.js_config", "use_external_data_format"
CACHE = "past_key_values."
LOGITS, SHOWN = "logits", 3  # outputs that are named
RESIDUAL_SCALE = "residual_scale"
DYNAMIC = ("MatMulInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLinear")
TABLES = ("Gather", "GatherBlockQuantized")  # lookups, which are no linear layers
PACKED = ("MatMulNBits", "GatherBlockQuantized", "MatMulBnb4")
LINEAR = ("MatMul", "Gemm", "MatMulNBits", "MatMulBnb4", "MatMulInteger", "DynamicQuantizeMatMul",
          "QLinearMatMul", "DequantizeLinear")  # fmt: skip
ATTENTION, BIAS = "GroupQueryAttention", 10  # the place of its mask among its inputs
ROTARY = (ATTENTION, "RotaryEmbedding")  # whose tables follow from the config
INDICES = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.STRING)
CACHES = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}


def published(names: Iterable[str]) -> set[str]:
    """Of a repository's files, the graphs."""
    return {name for name in names if name.endswith(SUFFIX)}


def beside(model: str, names: Collection[str]) -> list[str]:
    """A graph of a repository and its settings; nothing where it is of another format."""
    if not published([model]):
        return []
    parent = PurePosixPath(model).parent
    inner = parent.name == FOLDER and (parent / CONFIG).as_posix() not in names
    folder = parent.parent if inner else parent
    settings = (name for name in names if PurePosixPath(name).parent == folder)
    return [model, *filter(is_setting, settings)]


def further(path: Path) -> list[str]:
    """The files of its external data; none where it is no graph, which `inspect` says."""
    if path.suffix != SUFFIX:
        return []
    try:
        return [*_data_files(_graph(path))]
    except (InputError, ValueError):
        return []


def inspect(folder: Path, path: Path, called: str) -> Inspection:
    """One graph below a folder that has the model's settings; `called` is what people call that.

    Raises:
        InputError: the graph is malformed, or the folder lacks what every loader asks for.
        NoModelError: it computes something else than a language model's logits.
    """
    graph = _graph(path)
    outputs = [item.name for item in graph.output]
    if LOGITS not in outputs:
        found = printable(", ".join(outputs[:SHOWN]))
        raise NoModelError(f"{path}: no language model: it gives {found or 'nothing'}, no logits")
    for names in NEEDED:
        if not any((folder / name).is_file() for name in names):
            what = " or ".join(names)
            raise InputError(
                f"{folder}: {what} is missing, every loader of ONNX models asks for it"
            )
    stats, linears = _counted(graph)
    counted = Counter[Precision]()
    for name, count in linears.items():
        counted[_class(name)] += count
    precision = mostly(counted) if counted else Precision.FP32
    data = _data_files(graph)
    file = path.relative_to(folder).as_posix()
    beside = [PurePosixPath(file).parent.joinpath(name).as_posix() for name in data]
    present = [name for name in beside if (folder / name).is_file()]
    there = (item.name for item in folder.iterdir() if item.is_file())
    settings = sorted(name for name in there if is_setting(name))
    config = config_of(folder)
    label = LABEL.search(path.stem)
    known = label[1] if label and label[1] in LABELS else None
    return Inspection(
        format="onnx",
        name=f"{called}/{path.name}",
        folder=folder,
        subject=path,
        files=(file, *present, *settings),
        suffix="",
        stats=stats,
        precision=precision,
        facts=_facts(graph),
        label=known,
        says=_says(folder, graph, config),
        warnings=(*_misnamed(known, precision), *_asked(folder, path, data, config)),
        broken=_broken(path, data),
        on_disk=sum((folder / name).stat().st_size for name in (file, *present, *settings)),
        vocabulary=_vocabulary(graph, config),
        batches=not ((folder / GENAI).is_file() and _unmasked(graph)),
    )


def _unmasked(graph: GraphProto) -> bool:
    """Whether attention knows how long a text is, but not where it begins, as GenAI's builder has.

    GenAI pads on the right: `Tokenizer.encode_batch`.
    """
    nodes = [node for node in _nodes(graph) if node.op_type == ATTENTION]
    return any(len(node.input) <= BIAS or not node.input[BIAS] for node in nodes)


def _vocabulary(graph: GraphProto, config: Mapping[str, Any]) -> int | None:
    """Logits of a position; where the graph gives no number, what its settings say."""
    shapes = (item.type.tensor_type.shape.dim for item in graph.output if item.name == LOGITS)
    found = next((dims[-1].dim_value for dims in shapes if dims), 0) or config.get("vocab_size")
    return found if isinstance(found, int) else None


def _graph(path: Path) -> GraphProto:
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (DecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be read as an ONNX graph ({error})") from None
    if not graph.node:
        raise InputError(f"{path}: an ONNX graph without operators")
    return graph


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Also those of branches."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _stored(graph: GraphProto) -> Iterator[TensorProto]:
    """Also what only branches have."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _stored(attribute.g)


def _counted(graph: GraphProto) -> tuple[WeightStats, Counter[str]]:
    """Weights by type, each once, and those of linear layers.

    Scales and zero points count as bytes of what they are for, like everywhere.
    """
    stats, linears = WeightStats(), Counter[str]()
    # Both branches of a merged decoder have the same weights.
    stored = {item.name: item for item in _stored(graph) if item.data_type not in INDICES}
    nodes = [node for node in _nodes(graph) if node.op_type not in ROTARY]
    taken: set[str] = set()
    for node in sorted(nodes, key=lambda node: node.op_type not in PACKED):
        names = [name for name in node.input if name in stored and name not in taken]
        if not names:
            continue
        taken.update(names)
        kind, elements = _weight(node, [stored[name] for name in names])
        if elements < 2:
            continue
        role = "embedding" if node.op_type in TABLES else node.op_type
        size = sum(_bytes(stored[name]) for name in names)
        stats.add(kind, elements, size, kind=role)
        if node.op_type in LINEAR:
            linears[kind] += elements
    return stats, linears


def _weight(node: NodeProto, tensors: list[TensorProto]) -> tuple[str, int]:
    """The type of what a node multiplies or looks up, and how many values there are."""
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    largest = max(tensors, key=_bytes)
    count = math.prod(largest.dims)
    if node.op_type == "MatMulBnb4":
        return "NF4", attributes["K"] * attributes["N"]
    if node.op_type == "MatMulNBits":
        return f"{attributes.get('bits', 4)}-bit", attributes["K"] * attributes["N"]
    if node.op_type == "GatherBlockQuantized" and _type(largest) == "uint8":
        bits = int(attributes.get("bits", 4))
        return f"{bits}-bit", count * 8 // bits
    return _type(largest), count


def _type(tensor: TensorProto) -> str:
    name = TensorProto.DataType.Name(tensor.data_type)
    return str({"FLOAT": "float32", "DOUBLE": "float64"}.get(name, name.lower()))


def _bytes(tensor: TensorProto) -> int:
    """What it takes in a file; two of 4 bits share a byte."""
    half = _type(tensor) in ("int4", "uint4")
    size = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(math.prod(tensor.dims) * size // (2 if half else 1))


def _class(name: str) -> Precision:
    return CLASSES.get(name, Precision.LOW_BIT)


def _facts(graph: GraphProto) -> Facts:
    caches = {i.type.tensor_type.elem_type for i in graph.input if i.name.startswith(CACHE)}
    scales = [item for item in graph.initializer if item.name == RESIDUAL_SCALE]
    return Facts(
        activations=CACHES.get(next(iter(caches))) if len(caches) == 1 else None,
        residual_scale=float(numpy_helper.to_array(scales[0])) if scales else 1.0,
        dynamic=any(node.op_type in DYNAMIC for node in _nodes(graph)),
    )


def _data_files(graph: GraphProto) -> dict[str, int]:
    """Files, beside the graph, that its tensors lie in → how long each has to be at least."""
    found: dict[str, int] = {}
    for tensor in _stored(graph):
        entry = {item.key: item.value for item in tensor.external_data}
        if "location" in entry:
            begin, length = int(entry.get("offset", 0)), int(entry.get("length", _bytes(tensor)))
            found[entry["location"]] = max(found.get(entry["location"], 0), begin + length)
    return dict(sorted(found.items()))


def _broken(path: Path, data: Mapping[str, int]) -> str | None:
    """External data that is not there, or too short."""
    for name, size in data.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            return f"{path.name} asks for external data outside its folder: {name}"
        file = path.parent / name
        if not file.is_file():
            return f"{path.name} asks for its external data in {name}, which is missing"
        if file.stat().st_size < size:
            held = file.stat().st_size
            return f"{name} is cut off: {held:,} bytes, {path.name} asks for {size:,}"
    return None


def _says(folder: Path, graph: GraphProto, config: Mapping[str, Any]) -> dict[str, str]:
    operators = Counter(node.op_type for node in _nodes(graph))
    settings = read_object(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    generation = read_object(folder / GENERATION) if (folder / GENERATION).is_file() else config
    template = (folder / TEMPLATE).is_file() or "chat_template" in settings
    inputs = [item.name for item in graph.input if not item.name.startswith(CACHE)]
    said = {
        "architecture": str(config.get("model_type")),
        "context": str(config.get("max_position_embeddings", "not stated")),
        "inputs": ", ".join(inputs),
        "operators": ", ".join(f"{count} {name}" for name, count in operators.most_common(4)),
        "chat template": "there" if template else "none",
        "stop tokens": str(generation.get("eos_token_id", "none stated")),
        "GenAI": "genai_config.json is there" if (folder / GENAI).is_file() else "no genai_config",
    }
    cache = _facts(graph).activations
    return {**said, **({"KV cache": cache} if cache else {})}


def _misnamed(label: str | None, precision: Precision) -> Iterator[str]:
    if label is not None and LABELS[label] is not precision:
        yield (
            f"mislabelled: called {label}, but most weights of the linear layers are of the class"
            f" {precision.value}"
        )


def _asked(
    folder: Path, path: Path, data: Mapping[str, int], config: Mapping[str, Any]
) -> Iterator[str]:
    """What a loader asks for and does not find."""
    if (folder / GENAI).is_file():
        decoder = read_object(folder / GENAI).get("model", {}).get("decoder", {})
        name = decoder.get("filename")
        if isinstance(name, str) and not (folder / name).is_file():
            yield f"genai_config.json names {name}, which is missing"
    if path.parent.name != FOLDER:
        return
    chunks = _chunks(config, path.name)
    asked = [f"{path.name}_data" + (f"_{number}" if number else "") for number in range(chunks)]
    if [*data] != asked:
        stored = ", ".join(data) or "none"
        yield (
            f"transformers.js asks for {', '.join(asked) or 'no external data'}, by"
            f" {EXTERNAL} of config.json; the graph's is in {stored}"
        )


def _chunks(config: Mapping[str, Any], file: str) -> int:
    """Files of external data that transformers.js fetches for a graph: `models/session.js`."""
    said = (config.get(ADDED) or {}).get(EXTERNAL, 0)
    if isinstance(said, dict):
        said = said.get(file, said.get(file.removesuffix(SUFFIX), 0))
    return min(int(said), MOST_CHUNKS) if isinstance(said, bool | int) else 0
