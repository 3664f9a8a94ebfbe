"""Read `mlc-chat-config.json`: the dimensions of the decoder and its weight scheme."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeproof.artifact.json_file import read_json
from edgeproof.errors import DamagedExportError, InputError
from edgeproof.families import Family, Role, mlc_family, mlc_names
from edgeproof.families.mlc import MlcArchitecture
from edgeproof.families.rope import Rope
from edgeproof.families.structure import Structure, differences, plain_structure
from edgeproof.json_text import parse_json
from runtimes.tvm.scheme import Scheme, scheme_of

FILE = "mlc-chat-config.json"
# DecoderShape's integers ← keys of `model_config`.
COUNTS = {
    "hidden": "hidden_size",
    "intermediate": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocab": "vocab_size",
    "context": "context_window_size",
}
NORM_EPS = "rms_norm_eps"


@dataclass(frozen=True)
class DecoderShape:
    """Dimensions, constants and structure of a decoder; `context` is the longest sequence.

    `input_biases` says whether queries, keys and values have biases, `output_bias` whether what
    attention gives has one; `rotated` is how many channels of a head rotate. `modules` are MLC's
    names by role, with `{layer}` for a layer's number, and `states` transformers' for the same.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    norm_eps: float
    tied: bool
    structure: Structure
    output_bias: bool
    input_biases: bool
    rotated: int
    modules: Mapping[Role, str]
    states: Mapping[Role, str]

    @property
    def query_rows(self) -> int:
        """Outputs of the query projection."""
        return self.heads * self.head_dim

    @property
    def key_rows(self) -> int:
        """Outputs of the key projection, and of that of values."""
        return self.kv_heads * self.head_dim

    @property
    def qkv_rows(self) -> int:
        """Outputs of the fused query, key and value projection."""
        return self.query_rows + 2 * self.key_rows


def read_model_config(folder: Path) -> tuple[DecoderShape, Scheme]:
    """The decoder's shape and scheme.

    A missing `tie_word_embeddings` means untied, as it does for MLC.

    Raises:
        InputError: the file is missing or malformed, or asks for what this adapter cannot run.
    """
    path = folder / FILE
    try:
        raw = parse_json(path.read_text("utf-8"))
        model, quantization, name = raw["model_config"], raw["quantization"], raw["model_type"]
        counts = {field: model[key] for field, key in COUNTS.items()}
        family, architecture = _definition(path, name)
        numbers = {key: model[key] for key in (NORM_EPS, architecture.theta)}
        tied = bool(model.get("tie_word_embeddings", False))
        _check(path, counts, numbers)
        structure = _structure(path, architecture, model)
        biased = architecture.biases(model)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except KeyError as error:
        raise DamagedExportError(f"{path}: {error} is missing") from None
    except (ValueError, TypeError, AttributeError):
        raise DamagedExportError(f"{path}: not an MLC chat config") from None
    shape = DecoderShape(
        **counts,
        norm_eps=numbers[NORM_EPS],
        tied=tied,
        structure=structure,
        input_biases=Role.QUERY in biased,
        output_bias=Role.OUTPUT in biased,
        rotated=_rotated(structure, counts["head_dim"]),
        modules=architecture.modules(family.names, structure),
        states=replace(architecture, names={}).modules(family.names, structure),
    )
    return shape, scheme_of(quantization, str(path))


def _definition(path: Path, name: Any) -> tuple[Family, MlcArchitecture]:
    """MLC's model definition of that name."""
    family = mlc_family(name)
    if family is None or family.mlc is None:
        known = ", ".join(map(repr, mlc_names()))
        raise InputError(f"{path}: model_type {name!r} is not supported; this adapter runs {known}")
    return family, family.mlc


def _structure(path: Path, architecture: MlcArchitecture, model: Mapping[str, Any]) -> Structure:
    """What the model definition computes from the artifact's `model_config`."""
    rope = Rope(float(model[architecture.theta]))
    plain = plain_structure(model[COUNTS["layers"]], model[COUNTS["head_dim"]], rope)
    try:
        structure = architecture.structure(plain, model)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    for difference in differences(structure, structure.without_limits()):
        raise InputError(f"{path}: {difference} is not supported by this adapter")
    return structure


def _rotated(structure: Structure, head_dim: int) -> int:
    """All layers that rotate rotate as many channels."""
    return max((rope.rotated(head_dim) for rope in structure.ropes if rope), default=head_dim)


def read_begin_token(folder: Path) -> int | None:
    """The id that begins a text; None where the file names none.

    Raises:
        InputError: the file is missing or not JSON.
    """
    begin = read_json(folder / FILE).get("bos_token_id")
    return begin if type(begin) is int else None


def read_stop_tokens(folder: Path) -> frozenset[int]:
    """The ids that end a reply: of the conversation template; none where there is no template.

    Raises:
        InputError: the file is missing or not JSON.
    """
    template = read_json(folder / FILE).get("conv_template") or {}
    return frozenset(template.get("stop_token_ids", ()))


def _check(path: Path, counts: dict[str, Any], numbers: dict[str, Any]) -> None:
    for field, value in counts.items():
        if type(value) is not int or value <= 0:
            raise InputError(f"{path}: {COUNTS[field]} must be a positive integer, not {value!r}")
    for key, value in numbers.items():
        if type(value) not in (int, float) or value <= 0:
            raise InputError(f"{path}: {key} must be a positive number, not {value!r}")
    if counts["heads"] % counts["kv_heads"] or counts["head_dim"] % 2:
        raise InputError(
            f"{path}: {counts['heads']} heads, {counts['kv_heads']} key/value heads of"
            f" {counts['head_dim']} do not fit together"
        )
