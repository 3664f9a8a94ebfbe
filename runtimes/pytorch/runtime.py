"""The reference: a checkpoint in PyTorch, float32, eager attention, transformers' own model code.

Invariant: nothing is patched. `running` changes values only, so that weights read back from
an exported file run through the same arithmetic as the originals.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers

from edgeproof.checkpoints.special_tokens import Said
from runtimes.computing import CPU, LAYERS, WHOLE
from runtimes.norms import norm_offsets, same
from runtimes.peaks import Peak
from runtimes.pytorch.devices import gpu_name
from runtimes.pytorch.fused import columns, heads_of, held
from runtimes.pytorch.held import Held
from runtimes.pytorch.loading import logits_divisor, longest, windowless
from runtimes.pytorch.rotation import rotated
from runtimes.pytorch.text import CheckpointText
from runtimes.pytorch.watch import Watch
from runtimes.sequence import SequenceRuntime, left_padded

# Logits of so many positions are in memory at a time.
LOGIT_ROWS = 64
LAYER = re.compile(r".*\.layers\.\d+")


class TorchRuntime(CheckpointText, SequenceRuntime):
    """A causal language model in float32. Use `runtimes.pytorch.open_reference`."""

    name = "pytorch"
    version: str = f"{torch.__version__}, transformers {transformers.__version__}"
    device: str = CPU

    def __init__(self, hold: Callable[[Watch], Held], tokenizer: Any, said: Said) -> None:
        self._watch = Watch()
        self._held = hold(self._watch)
        self._on = self._held.device
        if self._on.type != CPU:  # results of another device are others
            self.device = f"{self._on.type}, {gpu_name()}"
            self.version = f"{self.version}, {self.device}"
        super().__init__(tokenizer, said, int(self._model.config.vocab_size))
        self.context, self.windowless = longest(self._model), windowless(self._model)
        self._divisor = logits_divisor(self._model)
        self._heads = heads_of(self._model)
        self._cache = transformers.DynamicCache()
        self._mask = torch.zeros((0, 0), dtype=torch.int64)  # of `step_many`'s sequences

    @property
    def _model(self) -> Any:
        return self._held.model

    @property
    def weights_held(self) -> str:
        """What is in memory while it runs: `computing.WHOLE`, or one layer at a time, `LAYERS`."""
        return LAYERS if self._held.by_layer else WHOLE

    def rest(self) -> None:
        """Free the weights and end the sequence; what needs weights next reads them again."""
        self._held.rest()
        self._clear()
        self.length = 0

    @property
    def peaks(self) -> tuple[Peak, ...]:
        """The largest values of each place that may overflow float16, in everything run yet."""
        return self._watch.peaks

    @property
    def head(self) -> np.ndarray:
        """The output matrix, float32 [V, hidden]: logits = hidden · headᵀ.

        A copy, divided, of a model that divides its logits.
        """
        return self._divided(self._held.head)

    @property
    def lasting_head(self) -> np.ndarray:
        """The same, to be kept: no other weights take its place."""
        return self._divided(self._held.lasting_head)

    def hidden(self, ids: Sequence[int]) -> np.ndarray:
        """Hidden states after the last norm, at every position of a new sequence: float32 [T, H].

        Raises:
            ValueError: as for `logits`.
        """
        return np.concatenate([part.cpu().numpy() for part in self._parts(ids)])

    def hidden_of(self, texts: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """`hidden` of each text; the same values, and layer by layer each weight is read once.

        Raises:
            ValueError: as for `logits`.
        """
        found = self._held.together([self._begin(ids) for ids in texts], self._watch)
        return (
            [*map(self.hidden, texts)] if found is None else [part.cpu().numpy() for part in found]
        )

    def logit_blocks(
        self, ids: Sequence[int], first: int = 0, kept: int = 0
    ) -> Iterator[np.ndarray]:
        """See `SequenceRuntime`; less than a chunk at a time, whose logits are the most of it."""
        yield from self._blocks(self._parts(ids, kept), first, kept)

    def logits_of(
        self, texts: Sequence[Sequence[int]]
    ) -> Callable[[Sequence[int]], Iterator[np.ndarray]]:
        """`logit_blocks` for these texts, whose hidden states may be taken from all at once."""
        found = self._held.together([self._begin(ids) for ids in texts], self._watch)
        if found is None:
            return self.logit_blocks
        known = {tuple(ids): part for ids, part in zip(texts, found, strict=True)}
        return lambda ids: self._blocks(torch.split(known[tuple(ids)], self.chunk))

    @contextlib.contextmanager
    def running(self, tensors: Mapping[str, np.ndarray]) -> Iterator[None]:
        """Run with other weights meanwhile: they take the place of the model's own.

        So no two models are in memory; the model's own are read again when they are next needed.
        `tensors` has every parameter by its Hugging Face name, looked up one by one; a tied head
        once, or apart. What `head` and `weights` gave before is no longer valid.

        Raises:
            InputError: a missing, unknown or misshapen tensor.
        """
        try:
            with self._held.running(tensors), self._watch.aside():
                self._clear()
                self.length = 0
                yield
        finally:
            self._clear()
            self.length = 0

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        """The parameters in use, by their Hugging Face names; not copies: do not write to them.

        Linear layers that are fused are apart here, as other families have them.
        """
        return self._held.weights

    def has_weights(self, tensors: Mapping[str, np.ndarray]) -> bool:
        """Whether these tensors are the model's own parameters, value by value."""
        own, offsets = self.weights, norm_offsets(self._model.config.to_dict())
        return own.keys() == tensors.keys() and all(
            same(values, tensors[name], offsets.get(name, 0.0)) for name, values in own.items()
        )

    def start_many(self, prompts: Sequence[Sequence[int]], room: int) -> np.ndarray:
        """See `runtimes.protocol.ManyRuntime`: one left-padded batch.

        `peaks` are left as they were, here and in `step_many`: padded positions are no text.
        """
        ids, mask = left_padded(prompts, min(self.stop_tokens, default=0))
        self._clear()
        self.length, self._mask = 0, torch.from_numpy(mask)
        return self._extend_many(torch.from_numpy(ids))

    def step_many(self, tokens: Sequence[int]) -> np.ndarray:
        """See `runtimes.protocol.ManyRuntime`."""
        ids = torch.tensor(tokens)[:, None]
        self._mask = torch.cat((self._mask, torch.ones_like(ids)), 1)
        return self._extend_many(ids)

    def sample(self, prompt: Sequence[int], rows: int, length: int, seed: int) -> list[list[int]]:
        """`rows` random texts of `length` tokens that begin with a prompt.

        From the model's own distribution (temperature 1, nothing cut off), past stop tokens. The
        same for the same seed, as far as the number of threads does not change a rounding.
        """
        generator = torch.Generator().manual_seed(seed)
        cache = transformers.DynamicCache()
        ids = torch.tensor([list(prompt)[:length]] * rows)  # [rows, tokens so far]
        last = ids
        with torch.inference_mode():
            while ids.shape[1] < length:
                hidden = self._model.base_model(
                    input_ids=last.to(self._on), past_key_values=cache, use_cache=True
                ).last_hidden_state[:, -1]
                logits = self._projected(hidden)  # [rows, V]
                last = torch.multinomial(logits.softmax(-1).cpu(), 1, generator=generator)
                ids = torch.cat((ids, last), 1)
        return [list(row) for row in ids.tolist()]

    def input_square_sums(self, ids: Sequence[int]) -> dict[str, tuple[np.ndarray, int]]:
        """Sums of squares of what enters each linear layer, over the tokens of a new sequence.

        Weight's Hugging Face name → float64 [in] and the number of tokens; without the head. What
        is fused has one.

        Raises:
            ValueError: as for `logits`.
        """
        sums: dict[str, tuple[np.ndarray, int]] = {}

        def watch(name: str) -> Callable[..., None]:
            def add(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
                rows = inputs[0].reshape(-1, inputs[0].shape[-1]).cpu().double()  # [tokens, in]
                before, count = sums.get(name, (0.0, 0))
                sums[name] = (before + rows.square().sum(0).numpy(), count + len(rows))

            return add

        with contextlib.ExitStack() as hooks:
            for name, module in self._model.named_modules():
                if isinstance(module, torch.nn.Linear):
                    hook = module.register_forward_pre_hook(watch(f"{name}.weight"))
                    hooks.callback(hook.remove)
            self._run(ids)
        return sums

    def states(
        self, ids: Sequence[int], given: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """What goes into and comes out of each norm and linear layer: float32 [T, width] of each.

        `<module>.input` and `<module>`, by Hugging Face name and without the head; also each
        layer's input, and `<attention>.q_rope` and `k_rope`, queries and keys as attention takes
        them: after the rotary embedding, where the layer has one. Modules
        that are `given` an input (whole layers too) run on that instead of what they would take,
        which `<module>.input` still is: their results are then of their own work alone.

        Raises:
            ValueError: as for `logits`.
        """
        states: dict[str, np.ndarray] = {}
        rotations: list[tuple[np.ndarray, ...]] = []
        base = self._model.base_model

        def keep(name: str) -> Callable[..., None]:
            def watch(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
                for part, rows in columns(name, _rows(output), self._heads):
                    states.setdefault(f"{part}.input", _rows(inputs[0]))
                    states[part] = rows

            return watch

        def replace(name: str, rows: np.ndarray) -> Callable[..., tuple[torch.Tensor, ...]]:
            def give(
                _: torch.nn.Module, inputs: tuple[torch.Tensor, ...]
            ) -> tuple[torch.Tensor, ...]:
                states.update((f"{part}.input", _rows(inputs[0])) for part in held(name))
                taken = torch.from_numpy(np.require(rows, np.float32, ["C", "W"]))
                return taken[None].to(self._on), *inputs[1:]

            return give

        def take(name: str) -> Callable[..., None]:
            def watch(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
                states.setdefault(f"{name}.input", _rows(inputs[0]))

            return watch

        def rotation(_: torch.nn.Module, __: Any, output: Any) -> None:
            rotations.append(tuple(part[0].cpu().numpy() for part in output))

        with contextlib.ExitStack() as hooks, self._watch.aside():
            for name, module in base.named_modules(prefix=self._model.base_model_prefix):
                first = held(name)[0]
                if given is not None and first in given:
                    hook = module.register_forward_pre_hook(replace(name, given[first]))
                    hooks.callback(hook.remove)
                if LAYER.fullmatch(name):
                    hooks.callback(module.register_forward_pre_hook(take(name)).remove)
                if isinstance(module, torch.nn.Linear) or "norm" in type(module).__name__.lower():
                    hooks.callback(module.register_forward_hook(keep(name)).remove)
            hooks.callback(base.rotary_emb.register_forward_hook(rotation).remove)
            self._run(ids)
        for name in [name for name in states if name.endswith(("self_attn.q_proj", "k_proj"))]:
            attention, kind = name.rsplit(".", 1)[0], name[-6]
            before = states.get(f"{attention}.{kind}_norm", states[name])
            rows = before.reshape(states[name].shape)
            module = self._model.get_submodule(attention)
            if getattr(module, "use_rope", True):  # SmolLM3's
                cosine, sine = rotations[0]
                rows = rotated(rows, cosine, sine, int(module.head_dim))
            states[f"{attention}.{kind}_rope"] = rows
        return states

    def close(self) -> None:
        """Free the model."""
        self.rest()

    def _clear(self) -> None:
        self._cache = transformers.DynamicCache()

    def _cut(self, length: int) -> bool:
        self._cache.crop(length - self.length)
        return True

    def _extend(self, ids: np.ndarray, every: bool) -> np.ndarray:
        hidden = self._hidden(ids)
        return self._logits(hidden if every else hidden[-1:])

    def _extend_many(self, ids: torch.Tensor) -> np.ndarray:
        """Append tokens [B, n] to the sequences of `_mask`: the last's logits [B, V]."""
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        with torch.inference_mode(), self._watch.aside():
            output = self._model.base_model(
                input_ids=ids.to(self._on),
                attention_mask=self._mask.to(self._on),
                position_ids=positions.to(self._on),
                past_key_values=self._cache,
                use_cache=True,
            )
        return self._logits(output.last_hidden_state[:, -1])

    def _logits(self, hidden: torch.Tensor) -> np.ndarray:
        """Of hidden states [n, H]: [n, V]."""
        with torch.inference_mode():
            logits: np.ndarray = self._projected(hidden).cpu().numpy()
        return logits

    def _projected(self, hidden: torch.Tensor) -> torch.Tensor:
        """What transformers' model makes of its base model's result."""
        logits: torch.Tensor = self._model.get_output_embeddings()(hidden)
        return logits if self._divisor == 1 else logits / self._divisor

    def _parts(self, ids: Sequence[int], kept: int = 0) -> Iterator[torch.Tensor]:
        """Hidden states [1..chunk, H] of a sequence, after its first `kept` tokens."""
        chunks = self._begin(ids, kept)
        found = None if self.length else self._held.together([chunks], self._watch)
        if found is not None:
            yield from torch.split(found[0], self.chunk)
            return
        for chunk in chunks:
            hidden = self._hidden(chunk)
            self.length += len(chunk)
            yield hidden

    def _run(self, ids: Sequence[int]) -> None:
        """A new sequence through the model as it is, for those who watch its modules."""
        for chunk in self._begin(ids):
            self._hidden(chunk)
            self.length += len(chunk)

    def _blocks(
        self, parts: Iterable[torch.Tensor], first: int = 0, end: int = 0
    ) -> Iterator[np.ndarray]:
        """Logits from position `first` on, of consecutive hidden states after `end` positions."""
        for hidden in parts:
            begin = min(max(0, first - end), len(hidden))
            end += len(hidden)
            for start in range(begin, len(hidden), LOGIT_ROWS):
                yield self._logits(hidden[start : start + LOGIT_ROWS])

    def _divided(self, head: np.ndarray) -> np.ndarray:
        return head if self._divisor == 1 else head / np.float32(self._divisor)

    def _hidden(self, ids: np.ndarray) -> torch.Tensor:
        """Append tokens [n] to the cache: hidden states after the last norm, [n, H]."""
        with torch.inference_mode():
            output = self._model.base_model(
                input_ids=torch.from_numpy(ids)[None].to(self._on),
                past_key_values=self._cache,
                use_cache=True,
            )
        hidden: torch.Tensor = output.last_hidden_state[0]
        return hidden


def _rows(values: torch.Tensor) -> np.ndarray:
    """[1, T, …] → a copy [T, width]."""
    rows: np.ndarray = values[0].flatten(1).cpu().numpy().copy()
    return rows
