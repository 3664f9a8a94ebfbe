"""All that a run asks of the original before it opens an artifact, and where that is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproof.files.hashing import OutputFile
from runtimes.computing import AUTOMATIC, Computing
from runtimes.parity.answerable import answerable
from runtimes.parity.long_range import PROBES, load_probe, probe_file
from runtimes.parity.reference import CAPTURES, Reference, capture_files, load_reference
from runtimes.parity.samples import SAMPLES, reference_samples, sample_files
from runtimes.parity.stages import Stages
from runtimes.parity.suite import Suite
from runtimes.registry import open_reference

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime

Inputs = tuple[OutputFile, ...]
# Of the cache, where `kept_files` are.
FOLDERS = (CAPTURES, SAMPLES, PROBES)


@dataclass(frozen=True)
class Captured:
    """The original in PyTorch, and what it says of the text that its chat template takes.

    `note` is what is said of the text.
    """

    runtime: TorchRuntime
    suite: Suite
    note: str | None
    reference: Reference


def capture(
    original: Path,
    suite: Suite,
    files: Inputs,
    threads: int,
    positions: int | None,
    stages: Stages,
    computing: Computing = AUTOMATIC,
) -> Captured:
    """Ask the checkpoint in a folder, whose hashed `files` name what is kept in the cache.

    Of the text about so many `positions` are taken; None: all, and the long text.

    Raises:
        InputError: it cannot be opened.
    """
    with stages.phase("load"):
        runtime = open_reference(original, threads, computing)
        taken = answerable(suite, runtime.render_chat if runtime.has_chat_template else None)
    with stages.phase("text", len(taken.suite.prompts)) as advance:
        reference = load_reference(runtime, taken.suite, files, advance)
    if positions is None:
        with stages.phase("long text"):
            probe = load_probe(runtime, taken.suite.probe, files)
        reference = replace(reference, probe=probe)
    else:
        reference = reference.part(positions)
    return Captured(runtime, taken.suite, taken.note, reference)


def sample_all(captured: Captured, files: Inputs) -> None:
    """Have the original answer every chat that any artifact may be asked to answer."""
    reference = captured.reference
    prompts = [document.prompt for document in reference.sampled_chats]
    count = reference.reply_tokens
    reference_samples(captured.runtime, files, prompts, count, len(prompts))


def kept_files(captured: Captured, files: Inputs) -> Iterator[Path]:
    """Where all of that lies in the cache."""
    runtime, reference = captured.runtime, captured.reference
    yield from capture_files(runtime, captured.suite, files)
    if reference.probe is not None:
        yield probe_file(runtime, reference.probe.ids, reference.probe.first, files)
    prompts = [document.prompt for document in reference.sampled_chats]
    yield from sample_files(runtime, files, prompts, reference.reply_tokens)
