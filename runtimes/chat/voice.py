"""Somebody to talk to: an artifact in its runtime, or a checkpoint in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeproof.artifact import open_artifact
from edgeproof.artifact.run_record import RUN_RECORD, load_run_record
from edgeproof.errors import InputError
from runtimes.chat_templates import Message, Render
from runtimes.computing import AUTOMATIC, Computing
from runtimes.formats import reader_of
from runtimes.protocol import TextRuntime
from runtimes.registry import open_reference, open_runtime

MANIFEST, CONFIG = "edgeproof.json", "config.json"


@dataclass(frozen=True)
class Voice:
    """A runtime with the way to put a conversation to it; `name` is for people."""

    name: str
    runtime: TextRuntime
    render: Render

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The conversation's ids, up to where the reply begins.

        Raises:
            InputError: the template cannot say it, or it fills the model's context.
        """
        text = self.render(messages)
        if text is None:
            raise InputError(f"{self.name}: its chat template has no place for a system message")
        ids = self.runtime.tokenize(text)
        if len(ids) >= self.runtime.context:
            raise InputError(
                f"{self.name}: the conversation has {len(ids)} tokens, the model was made for"
                f" {self.runtime.context}; /reset begins a new one"
            )
        return ids


def open_voice(
    target: str,
    root: Path,
    runtime: str | None,
    threads: int,
    computing: Computing = AUTOMATIC,
) -> Voice:
    """Open an artifact folder, a checkpoint folder, or the checkpoint of a model in `root`.

    `runtime` names another than the format's usual one; a checkpoint is `computing` in PyTorch.

    Raises:
        InputError: it is none of these, or has no chat template.
    """
    folder = Path(target)
    if (folder / MANIFEST).exists():
        return _artifact(folder, runtime, threads)
    if runtime is not None:
        raise InputError(f"{target}: --runtime is for artifacts; a checkpoint runs in PyTorch")
    if (folder / CONFIG).exists():
        return _checkpoint(folder, threads, computing)
    if folder.exists():
        raise InputError(f"{target}: neither an artifact ({MANIFEST}) nor a checkpoint ({CONFIG})")
    if not (root / RUN_RECORD).exists():
        raise InputError(f"{target}: no such folder")
    models = {run.label: run.checkpoint for run in load_run_record(root).models}
    if target not in models:
        known = ", ".join(models)
        raise InputError(f"{target}: no such folder, and no model of {root}; it has {known}")
    checkpoint = Path(models[target])
    if not checkpoint.is_dir():
        raise InputError(f"{checkpoint}: the checkpoint of {target} is missing; export it again")
    return _checkpoint(checkpoint, threads, computing)


def _artifact(folder: Path, other: str | None, threads: int) -> Voice:
    artifact = open_artifact(folder)
    render = reader_of(artifact).chat_template(artifact)
    if render is None:
        raise InputError(f"{folder}: it has no chat template: a base model continues text only")
    runtime = open_runtime(artifact, threads, other)
    if not isinstance(runtime, TextRuntime):
        raise InputError(f"{folder}: {runtime.name} gives logits, but no text to chat with")
    variant = artifact.manifest.variant
    return Voice(f"{variant.format} {variant.name} · {runtime.name}", runtime, render)


def _checkpoint(folder: Path, threads: int, computing: Computing) -> Voice:
    runtime = open_reference(folder, threads, computing)
    if not runtime.has_chat_template:
        raise InputError(f"{folder}: it has no chat template: a base model continues text only")
    return Voice(f"PyTorch {runtime.version.split(',')[0]}", runtime, runtime.render_chat)
