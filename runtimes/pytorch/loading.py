"""A checkpoint folder's model and tokenizer in transformers. No network, no remote code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from torch.overrides import TorchFunctionMode

from edgeproof.artifact.json_file import read_json
from edgeproof.checkpoints.config import settled
from edgeproof.errors import InputError
from edgeproof.families.context import bounded
from runtimes.config_facts import decoder_of

# Digits, runs of spaces, newlines, code, unicode: what wrongly rebuilt tokenizers get wrong.
PROBE = "in 1999,  42\n\n    def f(x):\treturn x**2  # naïve — Größe 東京 🙂 I'll\r\n 0x1F "

REASON = 200  # characters of what transformers says
HOW = {"dtype": torch.float32, "attn_implementation": "eager"}


class _Unallocated(TorchFunctionMode):
    """Meanwhile `torch.empty`, which modules make their matrices by, takes no memory."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call it, on another device."""
        where = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **where})


def load_model(checkpoint: Path) -> Any:
    """The causal language model of a checkpoint folder, float32 with eager attention, frozen.

    Raises:
        InputError: transformers cannot load it, or its logits are not hidden states times head.
    """
    model = _loaded(
        transformers.AutoModelForCausalLM, checkpoint, use_safetensors=True,
        **HOW, **_config(checkpoint),
    )  # fmt: skip
    model.eval().requires_grad_(False)
    check_head(model, checkpoint, model.device)
    return model


def empty_model(checkpoint: Path) -> Any:
    """The same without values: what `torch.empty` makes, all matrices, is on the device "meta".

    Norms and buffers are as transformers begins them.

    Raises:
        InputError: transformers cannot make it.
    """
    config = _config(checkpoint).get("config") or _loaded(transformers.AutoConfig, checkpoint)
    with quiet(), _Unallocated(), _refusing(checkpoint):
        model = transformers.AutoModelForCausalLM.from_config(config, **HOW)
    model.eval().requires_grad_(False)
    return model


def check_head(model: Any, checkpoint: Path, device: torch.device) -> None:
    """Refuse a model whose logits are not its hidden states times its head.

    Raises:
        InputError: they are not.
    """
    ids = torch.arange(min(8, model.config.vocab_size))[None].to(device)
    found: list[torch.Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        found.append(output.last_hidden_state)

    with torch.inference_mode():
        hook = model.base_model.register_forward_hook(keep)
        logits = model(input_ids=ids).logits
        hook.remove()
        head = model.get_output_embeddings().weight
        if not torch.allclose(
            logits, found[0] @ head.T / logits_divisor(model), rtol=1e-4, atol=1e-4
        ):
            raise InputError(
                f"{checkpoint}: logits of {type(model).__name__} are not hidden states times the"
                " head (they are scaled or capped); the comparison does not support that yet"
            )


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
    with quiet(), _refusing(checkpoint):
        return kind.from_pretrained(
            checkpoint, local_files_only=True, trust_remote_code=False, **options
        )


@contextlib.contextmanager
def _refusing(checkpoint: Path) -> Iterator[None]:
    """What transformers raises is what the checkpoint's content caused."""
    try:
        yield
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
