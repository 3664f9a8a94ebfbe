"""An open model as lm-evaluation-harness asks it: a `TemplateLM` over the runtime contract.

What the harness decides is the harness's: where a context ends and its continuation begins, windows
of long texts, stop sequences. What is computed is ours: `scoring` and `generation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from edgeproof.command import progress
from edgeproof.errors import InputError
from runtimes.parity.decoding import NotFinite, draw
from runtimes.tasks.beginning import Beginning
from runtimes.tasks.generation import Choose, Wish, greedy, write_together
from runtimes.tasks.kept import Kept
from runtimes.tasks.scoring import Continuation, score
from runtimes.tasks.subject import Subject

MOST = 256  # tokens of an answer where a task does not say (`HFLM.max_gen_toks`)
SCORED, ROLLED, WRITTEN = "loglikelihood", "loglikelihood_rolling", "generate_until"
# Of `generation_kwargs`, those that do nothing where the most likely token is taken.
OF_SAMPLING = {"do_sample", "temperature", "top_p"}
UNDERSTOOD = {*OF_SAMPLING, "until", "max_gen_toks"}


@dataclass(frozen=True)
class Style:
    """How texts are written: how many at a time, and the seed of those that a task has sampled."""

    together: int = 1
    seed: int = 0
    reuse: bool = True


class RuntimeLM(TemplateLM):  # type: ignore[misc]
    """See the module. `beginning` counts tokens, `kept` has every answer as soon as it is there."""

    def __init__(self, subject: Subject, kept: Kept, style: Style) -> None:
        super().__init__()
        self._subject, self._kept, self._style = subject, kept, style
        self.beginning = Beginning(subject.runtime, reuse=style.reuse)

    @property
    def eot_token_id(self) -> int:
        """What ends a text, the lowest of these."""
        return min(self._subject.runtime.stop_tokens, default=self._subject.begin)

    @property
    def prefix_token_id(self) -> int:
        """What a text without a context follows."""
        return self._subject.begin

    @property
    def tokenizer_name(self) -> str:
        """What the harness's own caches would be told apart by; none is used."""
        return self._subject.name

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Ids of a text, with what the model's files put around it unless that is not wanted."""
        if add_special_tokens is False:
            return self._subject.runtime.tokenize(string)
        return self._subject.encoded(string)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as text; without a generation prompt its last message is begun."""
        return self._subject.prompt(chat_history, answer_begun=not add_generation_prompt)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """See `LM`."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        asked = [[SCORED, *texts] for texts, _, _ in requests]
        items = [Continuation(tuple(a), tuple(b)) for _, a, b in requests]
        for text, item in zip(asked, items, strict=True):
            if not item.target:
                raise InputError(f"an answer has no tokens of its own: {text[2][:60]!r}")
        answers = dict(self._known(asked))
        missing = [number for number in range(len(asked)) if number not in answers]
        with self._judged(), progress(self._label(SCORED), len(asked)) as advance:
            advance(len(answers))
            found = score(
                self._subject.runtime, self.beginning, [items[number] for number in missing]
            )
            for index, scored in found:
                number = missing[index]
                answers[number] = [scored.loglikelihood, scored.greedy]
                self._kept.put(asked[number], answers[number])
                advance(1)
        return [(float(a), bool(b)) for a, b in (answers[n] for n in range(len(asked)))]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[float]:
        """See `LM`; each text by itself, so that an interrupted run loses one at most."""
        asked = [[ROLLED, *request.args] for request in requests]
        answers = dict(self._known(asked))
        with self._judged(), progress(self._label(ROLLED), len(asked)) as advance:
            for number, (_, text) in enumerate(asked):
                if number not in answers:
                    answers[number] = self._rolled(text)
                    self._kept.put(asked[number], answers[number])
                advance(1)
        return [float(answers[number]) for number in range(len(asked))]

    def _rolled(self, text: str) -> float:
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self._subject.runtime.context,
            context_len=1,
        )
        parts = (make_disjoint_window(window) for window in windows)
        items = [Continuation(tuple(a), tuple(b)) for a, b in parts]
        found = score(self._subject.runtime, self.beginning, items)
        return sum((scored.loglikelihood for _, scored in found), 0.0)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """See `LM`: the most likely tokens, unless a task has its answers sampled."""
        asked = _numbered([[WRITTEN, *request.args] for request in requests])
        answers = dict(self._known(asked))
        missing = [number for number in range(len(asked)) if number not in answers]
        wishes = {number: self._wish(asked[number]) for number in missing}
        # Those of a like length together, and after one that they share their beginning with.
        missing.sort(key=lambda number: wishes[number].prompt)
        if self._style.together > 1:
            missing.sort(key=lambda number: len(wishes[number].prompt))
        with self._judged(), progress(self._label(WRITTEN), len(asked)) as advance:
            advance(len(answers))
            for first in range(0, len(missing), self._style.together):
                group = missing[first : first + self._style.together]
                texts = write_together(
                    self._subject.runtime, self.beginning, [wishes[number] for number in group]
                )
                for number, text in zip(group, texts, strict=True):
                    answers[number] = text
                    self._kept.put(asked[number], text)
                    advance(1)
        return [str(answers[number]) for number in range(len(asked))]

    def _wish(self, request: Sequence[Any]) -> Wish:
        _, context, settings, repeat = request
        runtime = self._subject.runtime
        wanted = dict(normalize_gen_kwargs(settings, MOST))
        until = handle_stop_sequences(wanted["until"], eos=None)
        for stop in sorted(runtime.stop_tokens):
            until = handle_stop_sequences(until, eos=runtime.detokenize([stop]))
        most = int(wanted["max_gen_toks"])
        if most < 1:
            raise InputError(f"a task has answers of at most {most} tokens; give --max-tokens")
        room = runtime.context - most
        if room <= 0:
            raise InputError(
                f"a task has answers of up to {most} tokens, {self._subject.name} was made for"
                f" {runtime.context} in all; give --max-tokens"
            )
        prompt = self.tok_encode(context)[-room:] or [self.prefix_token_id]
        choose = self._choice(wanted, context, repeat)
        return Wish(tuple(prompt), tuple(text for text in until if text), most, choose)

    def _choice(self, wanted: Mapping[str, Any], context: str, repeat: int) -> Choose:
        temperature = float(wanted.get("temperature") or 0.0)
        if not wanted.get("do_sample") or temperature == 0.0:
            return greedy
        unknown = sorted(wanted.keys() - UNDERSTOOD)
        if unknown:
            raise InputError(
                f"a task has its answers sampled with {unknown[0]}, which is not known"
            )
        top_p = float(wanted.get("top_p", 1.0))
        if not (0 < temperature < np.inf and 0 < top_p <= 1):
            raise InputError(
                f"a task has its answers sampled at temperature {temperature:g}, top-p {top_p:g};"
                " the first must be above 0, the second also at most 1"
            )
        numbers = np.random.default_rng([self._style.seed, repeat, *context.encode()])

        def choose(_: int, logits: np.ndarray) -> int:
            return draw(logits, float(numbers.random()), temperature, top_p)

        return choose

    @contextmanager
    def _judged(self) -> Iterator[None]:
        """A model without a most likely token has no answers, right or wrong."""
        try:
            yield
        except NotFinite as error:
            raise InputError(
                f"{self._subject.name}: {error}: it is broken; `edgeproof parity` says where"
            ) from None

    def _known(self, asked: Sequence[Sequence[Any]]) -> Iterator[tuple[int, Any]]:
        for number, request in enumerate(asked):
            answer = self._kept.get(request)
            if answer is not None:
                yield number, answer

    def _label(self, kind: str) -> str:
        return f"{self._subject.name}: {kind}"


def _numbered(requests: Iterable[list[Any]]) -> list[list[Any]]:
    """With how often the same was asked before: sampled answers to it are others."""
    seen: dict[str, int] = {}
    found = []
    for request in requests:
        key = repr(request)
        found.append([*request, seen.get(key, 0)])
        seen[key] = seen.get(key, 0) + 1
    return found
