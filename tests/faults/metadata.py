"""Mistakes in configs, tokenizers and templates: edits of JSON and of GGUF's own metadata."""

from __future__ import annotations

import json
import struct
from typing import Any

from gguf import GGUFReader

from edgeproof.artifact import Artifact
from tests.faults.fault import EditArtifact

THETA_TIMES = 0.1
EPSILON_TIMES = 0.1
GREETING, WRONG_GREETING = "<|im_start|>assistant\n", "<|im_start|>assistant \n"
MLC_CONFIG = "mlc-chat-config.json"
HEADER, UINT32, ALIGNMENT = struct.Struct("<4sIQQ"), 4, 32  # of GGUF


def wrong_theta(config: dict[str, Any]) -> None:
    """10,000, many exporters' default, where SmolLM2 has 100,000."""
    config["rope_theta"] *= THETA_TIMES


def wrong_epsilon(config: dict[str, Any]) -> None:
    """1e-6, another usual value."""
    config["rms_norm_eps"] *= EPSILON_TIMES


def wrong_end(generation: dict[str, Any]) -> None:
    """Generation would stop at another token."""
    generation["eos_token_id"] = 0


def no_digit_splitting(tokenizer: dict[str, Any]) -> None:
    """What transformers makes of SmolLM's GGUF files, and GPT2Tokenizer of its tokenizer.json."""
    steps = tokenizer["pre_tokenizer"]["pretokenizers"]
    tokenizer["pre_tokenizer"]["pretokenizers"] = [s for s in steps if s["type"] != "Digits"]


def space_in_template(settings: dict[str, Any]) -> None:
    """Before the line break that the reply follows."""
    settings["chat_template"] = settings["chat_template"].replace(GREETING, WRONG_GREETING)


def space_in_conversation(artifact: Artifact) -> None:
    """The same in MLC's own template."""
    path = artifact.path / MLC_CONFIG
    config = json.loads(path.read_text())
    template = config["conv_template"]
    template["role_empty_sep"] = " " + template["role_empty_sep"]
    path.write_text(json.dumps(config))


def wrong_stop(artifact: Artifact) -> None:
    """WebLLM ignores eos_token_id: these are the tokens that it stops at."""
    path = artifact.path / MLC_CONFIG
    config = json.loads(path.read_text())
    config["conv_template"]["stop_token_ids"] = [0]
    path.write_text(json.dumps(config))


def gguf_added(key: str, value: int) -> EditArtifact:
    """Put one more key of the architecture, an unsigned number, before all others of the metadata.

    Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
    """

    def edit(artifact: Artifact) -> None:
        path = artifact.file(".gguf")
        data, reader = path.read_bytes(), GGUFReader(path)
        begin, last = int(reader.data_offset), reader.tensors[-1].field
        end = last.offset + sum(int(part.nbytes) for part in last.parts)
        magic, version, tensors, count = HEADER.unpack_from(data)
        name = f"{_architecture(reader)}.{key}".encode()
        entry = struct.pack(f"<Q{len(name)}sII", len(name), name, UINT32, value)
        head = HEADER.pack(magic, version, tensors, count + 1) + entry + data[HEADER.size : end]
        path.write_bytes(head + bytes(-len(head) % ALIGNMENT) + data[begin:])

    return edit


def linear_scaling(config: dict[str, Any]) -> None:
    """Positions squeezed together, as the checkpoint's are not."""
    config["rope_scaling"] = {"type": "linear", "factor": 4.0}


def unscaled_config_json(artifact: Artifact) -> None:
    """Leaves the mistake in the graph alone: config.json is the checkpoint's again."""
    path = artifact.path / "config.json"
    config = json.loads(path.read_text())
    del config["rope_scaling"]
    path.write_text(json.dumps(config))


def scaled_model_config(artifact: Artifact) -> None:
    """The same in MLC's own config."""
    path = artifact.path / MLC_CONFIG
    config = json.loads(path.read_text())
    linear_scaling(config["model_config"])
    path.write_text(json.dumps(config))


def swapped_merges(tokenizer: dict[str, Any]) -> None:
    """The last two, which hardly any text needs."""
    merges = tokenizer["model"]["merges"]
    merges[-1], merges[-2] = merges[-2], merges[-1]


def json_value(name: str, key: str, value: Any) -> EditArtifact:
    """Write another value of a key of a JSON file."""

    def edit(artifact: Artifact) -> None:
        path = artifact.path / name
        document = json.loads(path.read_text())
        document[key] = value
        path.write_text(json.dumps(document))

    return edit


def more_data_files(artifact: Artifact) -> None:
    """As an exporter that forgot to count anew after its limits were raised."""
    path = artifact.path / "config.json"
    config = json.loads(path.read_text())
    counts = config["transformers.js_config"]["use_external_data_format"]
    counts.update({name: count + 2 for name, count in counts.items()})
    path.write_text(json.dumps(config))


def moved_in_old_index(artifact: Artifact) -> None:
    """As an exporter that wrote one index, changed its layout, and wrote the other."""
    path = artifact.path / "ndarray-cache.json"
    index = json.loads(path.read_text())
    shared = next(shard for shard in index["records"] if len(shard["records"]) > 1)
    shared["records"][1]["byteOffset"] += 64
    path.write_text(json.dumps(index))


def right_config_json(artifact: Artifact) -> None:
    """Leaves the mistake in the graph alone: config.json is the checkpoint's again."""
    path = artifact.path / "config.json"
    config = json.loads(path.read_text())
    config["rope_theta"] /= THETA_TIMES
    path.write_text(json.dumps(config))


def one_key_value_head(artifact: Artifact) -> None:
    """MLC: the shapes say otherwise."""
    path = artifact.path / MLC_CONFIG
    config = json.loads(path.read_text())
    config["model_config"]["num_key_value_heads"] = 1
    path.write_text(json.dumps(config))


def gguf_value(key: str, value: float) -> EditArtifact:
    """Overwrite a number of GGUF's metadata in place, if need be one of the architecture's."""

    def edit(artifact: Artifact) -> None:
        reader = GGUFReader(artifact.file(".gguf"), "r+")
        whole = key if key in reader.fields else f"{_architecture(reader)}.{key}"
        field = reader.fields[whole]
        field.parts[field.data[0]][0] = value

    return edit


def _architecture(reader: GGUFReader) -> str:
    return str(reader.fields["general.architecture"].contents())
