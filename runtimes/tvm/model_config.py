"""Read `mlc-chat-config.json`: the dimensions of the decoder and its weight scheme."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeproof.artifact.json_file import read_json
from edgeproof.errors import InputError
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
NUMBERS = {"norm_eps": "rms_norm_eps", "rope_theta": "position_embedding_base"}


@dataclass(frozen=True)
class DecoderShape:
    """Dimensions and constants of a Llama-family decoder; `context` is the longest sequence."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    norm_eps: float
    rope_theta: float
    tied: bool

    @property
    def query_rows(self) -> int:
        """Outputs of the query projection."""
        return self.heads * self.head_dim

    @property
    def qkv_rows(self) -> int:
        """Outputs of the fused query, key and value projection."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim


def read_model_config(folder: Path) -> tuple[DecoderShape, Scheme]:
    """The decoder's shape and scheme.

    A missing `tie_word_embeddings` means untied, as it does for MLC.

    Raises:
        InputError: the file is missing or malformed, or asks for what this adapter cannot run.
    """
    path = folder / FILE
    try:
        raw = json.loads(path.read_text("utf-8"))
        model, quantization, family = raw["model_config"], raw["quantization"], raw["model_type"]
        counts = {field: model[key] for field, key in COUNTS.items()}
        numbers = {field: model[key] for field, key in NUMBERS.items()}
        tied = bool(model.get("tie_word_embeddings", False))
        scaling = model.get("rope_scaling")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except KeyError as error:
        raise InputError(f"{path}: {error} is missing; export it again") from None
    except (ValueError, TypeError, AttributeError):
        raise InputError(f"{path}: not an MLC chat config; export it again") from None
    _check(path, counts, numbers)
    if family != "llama" or scaling:
        raise InputError(
            f"{path}: model_type {family!r} with rope_scaling {scaling!r} is not supported;"
            " this adapter runs 'llama' without rope scaling"
        )
    return DecoderShape(**counts, **numbers, tied=tied), scheme_of(quantization, str(path))


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
    for field, value in numbers.items():
        if type(value) not in (int, float) or value <= 0:
            raise InputError(f"{path}: {NUMBERS[field]} must be a positive number, not {value!r}")
    if counts["heads"] % counts["kv_heads"] or counts["head_dim"] % 2:
        raise InputError(
            f"{path}: {counts['heads']} heads, {counts['kv_heads']} key/value heads of"
            f" {counts['head_dim']} do not fit together"
        )
