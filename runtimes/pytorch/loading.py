"""A checkpoint folder's model and tokenizer in transformers. No network, no remote code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer

from edgeproof.artifact.json_file import read_json
from edgeproof.checkpoints.config import settled
from edgeproof.errors import InputError
from edgeproof.families.context import bounded
from runtimes.config_facts import decoder_of

# Digits, runs of spaces, newlines, code, unicode: what wrongly rebuilt tokenizers get wrong.
PROBE = "in 1999,  42\n\n    def f(x):\treturn x**2  # naïve — Größe 東京 🙂 I'll\r\n 0x1F "

REASON = 200  # characters of what transformers says


def load_model(checkpoint: Path) -> Any:
    """The causal language model of a checkpoint folder, float32 with eager attention, frozen.

    Raises:
        InputError: transformers cannot load it, or its logits are not hidden states times head.
    """
    model = _loaded(
        transformers.AutoModelForCausalLM, checkpoint,
        dtype=torch.float32, attn_implementation="eager", use_safetensors=True,
        **_config(checkpoint),
    )  # fmt: skip
    model.eval().requires_grad_(False)
    ids = torch.arange(min(8, model.config.vocab_size))[None]
    with torch.inference_mode():
        hidden = model.base_model(input_ids=ids).last_hidden_state
        expected = hidden @ model.get_output_embeddings().weight.T / logits_divisor(model)
        if not torch.allclose(model(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4):
            raise InputError(
                f"{checkpoint}: logits of {type(model).__name__} are not hidden states times the"
                " head (they are scaled or capped); the comparison does not support that yet"
            )
    return model


def logits_divisor(model: Any) -> float:
    """What transformers' Granite divides its logits by; 1 of other models."""
    return float(getattr(model.config, "logits_scaling", 1.0))


def longest(model: Any) -> int:
    """The longest text of one rotation: with long rope, transformers changes it beyond.

    All positions rotate otherwise then, so that step by step nothing could be kept.
    """
    decoder = decoder_of(model.config.to_dict())
    if decoder is None:
        return int(model.config.max_position_embeddings)
    return bounded(decoder, windows=True).max_positions


def windowless(model: Any) -> int:
    """As `longest`, where a file has no sliding windows: the context that it then states."""
    decoder = decoder_of(model.config.to_dict())
    return longest(model) if decoder is None else bounded(decoder).max_positions


def load_tokenizer(checkpoint: Path) -> Any:
    """The tokenizer of a checkpoint folder, exactly as its tokenizer.json has it.

    Raises:
        InputError: transformers cannot load it, or rebuilds it differently.
    """
    # Not AutoTokenizer: classes it may pick rebuild the tokenizer and, in transformers 5,
    # lose pre-tokenizers that tokenizer.json has (GPT2Tokenizer: the digit splitting).
    tokenizer = _loaded(transformers.PreTrainedTokenizerFast, checkpoint)
    _check_tokenizer(checkpoint / "tokenizer.json", tokenizer)
    return tokenizer


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers; errors still raise."""
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()


def _loaded(kind: Any, checkpoint: Path, **options: Any) -> Any:
    with quiet():
        try:
            return kind.from_pretrained(
                checkpoint, local_files_only=True, trust_remote_code=False, **options
            )
        except Exception as error:  # noqa: BLE001  whatever a checkpoint's content can cause
            reason = " ".join(str(error).split())[:REASON] or type(error).__name__
            raise InputError(f"{checkpoint}: transformers cannot load it: {reason}") from None


def _config(checkpoint: Path) -> dict[str, Any]:
    """The config where config.json has leftovers, which transformers would refuse or obey."""
    raw = read_json(checkpoint / "config.json")
    plain = settled(raw)
    kind = raw.get("model_type")
    if plain == raw or kind not in transformers.CONFIG_MAPPING:
        return {}
    return {"config": transformers.CONFIG_MAPPING[kind].from_dict(plain)}


def _check_tokenizer(path: Path, loaded: Any) -> None:
    alone = Tokenizer.from_file(str(path))
    alone.no_padding()
    alone.no_truncation()
    expected = alone.encode(PROBE, add_special_tokens=False).ids
    if loaded.encode(PROBE, add_special_tokens=False) != expected:
        raise InputError(
            f"{path}: transformers {transformers.__version__} rebuilds this tokenizer differently;"
            " save it again with tokenizer_class PreTrainedTokenizerFast"
        )
