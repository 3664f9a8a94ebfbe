"""What is evaluated: an export in its runtime, or a checkpoint in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeproof.artifact import Artifact
from edgeproof.checkpoints.tokenizer import TOKENIZER, around
from edgeproof.errors import InputError
from edgeproof.recovery import checkpoint_digest
from runtimes.chat_templates import Message, Render
from runtimes.computing import ON_CPU
from runtimes.formats import reader_of
from runtimes.protocol import MarkedTextRuntime, WrappingRuntime
from runtimes.registry import open_reference, open_runtime
from runtimes.said import read


@dataclass(frozen=True)
class Subject:
    """A model that is open. `whole` has the token ids of a text with what begins and ends it.

    `whose` is all that its answers depend on, beside what is asked.
    """

    name: str
    runtime: MarkedTextRuntime
    whole: Callable[[str], list[int]]
    render: Render | None
    whose: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ran(self) -> str:
        """The runtime, with its version and device."""
        return f"{self.runtime.name} {self.runtime.version} ({self.runtime.device})"

    @property
    def begin(self) -> int:
        """What a text without a context follows: its begin token, else an end (`HFLM`).

        Raises:
            InputError: the files name neither.
        """
        found = self.runtime.begin_token
        if found is None:
            found = min(self.runtime.stop_tokens, default=None)
        if found is None:
            raise InputError(f"{self.name}: its files name no token that begins or ends a text")
        return found

    def encoded(self, text: str) -> list[int]:
        """Ids of a text; where it begins with the begin token already, nothing is put around it."""
        begin = self.runtime.begin_token
        mark = "" if begin is None else self.runtime.detokenize([begin])
        if mark and text.startswith(mark):
            return self.runtime.tokenize(text)
        return self.whole(text)

    def prompt(self, messages: Sequence[Message], *, answer_begun: bool) -> str:
        """A conversation as text; with `answer_begun` the last message is a reply's beginning.

        A system message that the template has no place for is left out, as the harness does.

        Raises:
            InputError: there is no chat template, or it cannot be rendered.
        """
        if self.render is None:
            raise InputError(
                f"{self.name}: it has no chat template: a base model; leave out --chat"
            )
        asked = messages[:-1] if answer_begun else messages
        try:
            text = self.render(asked)
        except InputError:
            if not _has_system(asked):
                raise
            text = None
        if text is None:
            text = self.render([m for m in asked if m["role"] != "system"])
        if text is None:
            raise InputError(f"{self.name}: its chat template cannot say this conversation")
        return text + (messages[-1]["content"] if answer_begun else "")


def _has_system(messages: Sequence[Message]) -> bool:
    return any(message["role"] == "system" for message in messages)


def open_artifact_subject(artifact: Artifact, threads: int, other: str | None) -> Subject:
    """An export in its runtime, or in the `other` one named.

    Raises:
        InputError: it cannot be opened, or that runtime gives logits only.
    """
    variant = artifact.manifest.variant
    render = reader_of(artifact).chat_template(artifact)
    runtime = open_runtime(artifact, threads, other)
    name = f"{variant.format} {variant.name}"
    if not isinstance(runtime, MarkedTextRuntime):
        runtime.close()
        raise InputError(f"{artifact.path}: {runtime.name} gives logits, but no text for tasks")
    return Subject(name, runtime, _whole(artifact, runtime), render, {"artifact": artifact.sha256})


def open_reference_subject(checkpoint: Path, threads: int) -> Subject:
    """A checkpoint in PyTorch, float32.

    Raises:
        InputError: it cannot be loaded, or a package is missing.
    """
    runtime = open_reference(checkpoint, threads, ON_CPU)
    render = runtime.render_chat if runtime.has_chat_template else None
    whose = {"checkpoint": checkpoint_digest(checkpoint)}
    return Subject("PyTorch", runtime, runtime.tokenize_whole, render, whose)


def _whole(artifact: Artifact, runtime: MarkedTextRuntime) -> Callable[[str], list[int]]:
    """As the runtime does it, or, of one that leaves that to programs, as tokenizer.json says."""
    if isinstance(runtime, WrappingRuntime):
        return runtime.tokenize_whole
    before, after = around(read(artifact.path, TOKENIZER), artifact.path / TOKENIZER)
    return lambda text: [*before, *runtime.tokenize(text), *after]
