"""MLX: mlx_lm's own model of the folder, on the CPU or, on Apple silicon, on the GPU.

On a CPU all floats are loaded as float32, whatever the file has: MLX's float16 kernels for x86 are
too slow to be of use. It computes there in one thread. Remote code is never run: a config.json that
names a `model_file` is refused before mlx_lm sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache
from mlx_lm.utils import load_model
from tokenizers import Tokenizer

from edgeproof.artifact import Artifact
from edgeproof.artifact.json_file import read_json
from edgeproof.checkpoints.special_tokens import CONFIG, listed
from edgeproof.errors import InputError
from runtimes.config_facts import end_tokens
from runtimes.said import said_of
from runtimes.sequence import SequenceRuntime
from runtimes.special_ids import special_ids

MODEL_FILE = "model_file"
NORMS = ("input_layernorm", "post_attention_layernorm", "post_feedforward_layernorm")
ATTENTION = ("q_proj", "k_proj", "v_proj", "q_norm", "k_norm", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


def open_runtime(artifact: Artifact, threads: int) -> MlxRuntime:
    """Open an artifact on the CPU, in float32; MLX takes one thread whatever `threads` says.

    Raises:
        InputError: mlx_lm refuses the folder, or it asks for code of its own.
    """
    return MlxRuntime(artifact)


class MlxRuntime(SequenceRuntime):
    """A `runtimes.protocol.Runtime` on MLX. Use `open_runtime`."""

    name = "mlx"
    version: str = f"{metadata.version('mlx')}, mlx-lm {metadata.version('mlx-lm')}"
    device = "cpu"

    def __init__(self, artifact: Artifact) -> None:
        config = read_json(artifact.path / CONFIG)
        if config.get(MODEL_FILE) is not None:
            raise InputError(
                f"{artifact.path / CONFIG}: {MODEL_FILE} names code of its own, which is never run"
            )
        mx.set_default_device(mx.cpu)
        self._cache: list[Any] = []
        try:
            self.vocabulary = int(config["vocab_size"])
            self.context = int(config["max_position_embeddings"])
            self._model: Any = load_model(artifact.path, lazy=True, trust_remote_code=False)[0]
            self._model.set_dtype(mx.float32)
            mx.eval(self._model.parameters())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            why = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise InputError(f"{artifact.path}: mlx_lm cannot load it ({why})") from None
        self._tokenizer = _open_tokenizer(artifact)
        self.begin_token = next(iter(listed(said_of(artifact.path).role_id("bos"))), None)
        self.stop_tokens = end_tokens(artifact.path)
        self.special_tokens = special_ids(self._tokenizer)
        self._clear()

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`, special tokens in the text parsed, none added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def states(self, ids: Sequence[int]) -> dict[str, np.ndarray]:
        """What happens inside one new sequence of at most `chunk` tokens: float32 [T, width] each.

        By module, as `runtimes.states` names it. The model is of no use for anything else after it.
        """
        (tokens,) = self._begin(ids)
        states: dict[str, np.ndarray] = {}
        base = self._model.model
        for number, layer in enumerate(base.layers):
            name = f"model.layers.{number}"
            _watch_parts(layer, NORMS, name, states)
            _watch_parts(layer.self_attn, ATTENTION, f"{name}.self_attn", states)
            _watch_parts(layer.mlp, MLP, f"{name}.mlp", states)
            base.layers[number] = _Watched(layer, _keeper(name, states, results=False))
        _watch_parts(base, ("norm",), "model", states)
        self._advance(tokens, every=True)
        for number, cache in enumerate(self._cache):
            keys = cache.state[0][:, :, : len(tokens)]  # [1, kv heads, T, head_dim]
            rows = _array(keys)[0].swapaxes(0, 1).reshape(len(tokens), -1)
            states[f"model.layers.{number}.self_attn.k_rope"] = rows
        return states

    def close(self) -> None:
        """Free the model and what MLX keeps for arrays to come."""
        self._model, self._cache = None, []
        mx.clear_cache()

    def _clear(self) -> None:
        self._cache = make_prompt_cache(self._model)

    def _cut(self, length: int) -> bool:
        if not can_trim_prompt_cache(self._cache):  # a window has turned over
            return False
        more = self.length - length
        return bool(trim_prompt_cache(self._cache, more) == more)

    def _extend(self, ids: np.ndarray, every: bool) -> np.ndarray:
        """As mlx_lm's own prefill, where only the last logits are asked for.

        MLX computes what is asked for: of the tokens before the last not the head.
        """
        if not every and len(ids) > 1:
            self._model(mx.array(ids[:-1])[None], cache=self._cache)
            mx.eval([cache.state for cache in self._cache])
            ids = ids[-1:]
        logits: np.ndarray = _array(self._model(mx.array(ids)[None], cache=self._cache))[0]
        return logits


class _Watched:
    """A module that tells of each call; what else it has is the module's own."""

    def __init__(self, module: Any, keep: Callable[[Any, Any], None]) -> None:
        self._module, self._keep = module, keep

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def __call__(self, x: Any, *rest: Any, **named: Any) -> Any:
        result = self._module(x, *rest, **named)
        self._keep(x, result)
        return result


def _watch_parts(
    owner: Any, parts: Sequence[str], name: str, states: dict[str, np.ndarray]
) -> None:
    for part in parts:
        module = getattr(owner, part, None)
        if module is not None:
            keep = _keeper(f"{name}.{part}", states, results=True)
            setattr(owner, part, _Watched(module, keep))


def _keeper(
    name: str, states: dict[str, np.ndarray], *, results: bool
) -> Callable[[Any, Any], None]:
    def keep(x: Any, result: Any) -> None:
        states[f"{name}.input"] = _rows(x)
        if results:
            states[name] = _rows(result)

    return keep


def _rows(value: Any) -> np.ndarray:
    """[1, T, …] → float32 [T, width]."""
    rows: np.ndarray = _array(value)[0]
    return rows.reshape(len(rows), -1)


def _array(value: Any) -> np.ndarray:
    return np.asarray(np.array(value.astype(mx.float32)))


def _open_tokenizer(artifact: Artifact) -> Tokenizer:
    path = artifact.file("tokenizer.json")
    if not path.is_file():
        raise InputError(f"{path}: missing; export the artifact again")
    return Tokenizer.from_file(str(path))
