"""What opens an artifact or a checkpoint; a runtime's package is imported only then."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from edgeproof.extras import not_installed
from runtimes.adapter import Adapter, OptionalModule
from runtimes.common_tokens import on_common_tokens
from runtimes.computing import AUTOMATIC, CPU, Computing
from runtimes.formats import known_formats, reader, reader_of
from runtimes.protocol import Runtime

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime

REFERENCE = OptionalModule("runtimes.pytorch", ("torch", "transformers", "jinja2"), "parity")


def open_runtime(artifact: Artifact, threads: int, other: str | None = None) -> Runtime:
    """Open an artifact in the runtime that executes its format, or in the `other` one named.

    Where it has more tokens than the original, its logits are of the original's.

    Raises:
        InputError: no runtime for the format, its package is not installed, or it refuses the file.
    """
    runtime = adapter_of(artifact, other).open(artifact, threads)
    vocabulary = artifact.vocabulary
    if vocabulary is None or vocabulary.own == vocabulary.common:
        return runtime
    return on_common_tokens(runtime, vocabulary.common)


def adapter_of(artifact: Artifact, other: str | None = None) -> Adapter:
    """The adapter that executes an artifact's format, or the `other` one named.

    Raises:
        InputError: there is none.
    """
    found = reader_of(artifact)
    if other is None:
        return found.adapter
    try:
        return other_adapter(artifact.manifest.variant.format, other)
    except InputError as error:
        raise InputError(f"{artifact.subject}: {error}") from None


def other_adapter(form: str, name: str) -> Adapter:
    """The adapter of that name, which executes a format beside its usual one.

    Raises:
        InputError: there is none.
    """
    found = reader(form).others.get(name)
    if found is None:
        raise InputError(f"{name} does not execute {form}")
    return found


def activations(artifact: Artifact, other: str | None = None) -> frozenset[str | None]:
    """The dtypes between operators where users run the artifact: anywhere, or in `other` alone.

    Raises:
        InputError: no such runtime for the format.
    """
    found = reader_of(artifact)
    used = (
        [found.adapter, *found.others.values()] if other is None else [adapter_of(artifact, other)]
    )
    facts = artifact.manifest.variant.facts
    return frozenset(adapter.computes_in(facts) for adapter in used)


def other_adapters() -> dict[str, Adapter]:
    """The adapters that have to be asked for, by name, of all formats.

    Raises:
        InputError: a format that another package brings cannot be loaded.
    """
    return {
        name: adapter for form in known_formats() for name, adapter in reader(form).others.items()
    }


def open_reference(
    checkpoint: Path, threads: int, computing: Computing = AUTOMATIC
) -> TorchRuntime:
    """Open a checkpoint folder in PyTorch, float32: what every artifact is compared with.

    Raises:
        InputError: PyTorch or transformers is not installed, or the checkpoint cannot be loaded.
    """
    reference: TorchRuntime = REFERENCE.load().open_reference(checkpoint, threads, computing)
    return reference


def chosen_device(name: str) -> str:
    """The device that `--device` names; `auto` is a GPU where PyTorch finds one.

    Raises:
        InputError: PyTorch is not installed, or does not find it.
    """
    return name if name == CPU else str(REFERENCE.load().chosen_device(name))


def reference_version() -> str:
    """What the reference's arithmetic depends on, without importing it.

    Raises:
        InputError: PyTorch or transformers is not installed.
    """
    try:
        return ", ".join(f"{name} {metadata.version(name)}" for name in REFERENCE.packages)
    except metadata.PackageNotFoundError as error:
        raise not_installed(str(error.name), REFERENCE.extra) from None
