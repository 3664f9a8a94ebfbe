"""What exports of a recovered checkpoint are judged by: the model that was recovered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproof.checkpoints.weight_files import weight_files
from edgeproof.errors import InputError
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import OutputFile, input_records
from edgeproof.quantised import read_quantised_record
from edgeproof.recovery import checkpoint_digest, read_recovery
from runtimes.located import located
from runtimes.parity.result import HeldOut, InputFile, RecoveredFrom
from runtimes.parity.suite import Document
from runtimes.peaks import Peak

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime

WEIGHTS = ".safetensors"


def original_of(checkpoint: Path, given: str | None) -> Path:
    """The checkpoint whose function the exports of `checkpoint` have to compute.

    It is `checkpoint` itself where no recovery made it. Else the original: `given` as `--model`
    takes it, or what recovery.json says finds it; its digest is compared with that file's. A folder
    needs no process that finds it.

    Raises:
        InputError: the original is not found, is another one, or was given where there is none.
    """
    recovery = read_recovery(checkpoint)
    if recovery is None:
        if given is not None:
            raise InputError(f"--original: {checkpoint} is no recovered checkpoint; leave it out")
        return checkpoint
    original = recovery.original
    wanted = given or original.found_by
    if wanted is None:
        raise InputError(
            f"{checkpoint}: recovered from {original.name}, which its exports are compared with:"
            " say where that is, --original DIR"
        )
    revision = original.revision if given is None and original.repo == wanted else None
    found = Path(wanted) if Path(wanted).is_dir() else located(wanted, revision).path
    if checkpoint_digest(found) != original.digest:
        raise InputError(
            f"{wanted}: not what {checkpoint} was recovered from; give --original the checkpoint"
            f" of {original.name} whose digest is {original.digest[:12]}…"
        )
    return found


def recovered_from(checkpoint: Path, inputs: tuple[OutputFile, ...]) -> RecoveredFrom | None:
    """What a report says of a recovered checkpoint, whose files are `inputs`; None of any other."""
    recovery = read_recovery(checkpoint)
    if recovery is None:
        return None
    files = tuple(InputFile(item.path, item.sha256) for item in inputs)
    held = _held_out(recovery.method)
    return RecoveredFrom(recovery.text.tokens, recovery.text.sha256, files, held)


def _held_out(method: Mapping[str, Any]) -> HeldOut | None:
    try:
        held = method["held_out"]
        kl, low, high = map(float, held["figures"]["mean_kl"])
        return HeldOut(int(held["tokens"]), kl, low, high)
    except (KeyError, TypeError, ValueError):
        return None


def reading_of(checkpoint: Path) -> str:
    """What follows the reference's name where its weights were stored quantised.

    Raises:
        InputError: the record of how they were read is damaged.
    """
    record = read_quantised_record(checkpoint)
    return f", {record.said}" if record else ""


def original_inputs(
    original: Path, checkpoint: Path, inputs: tuple[OutputFile, ...]
) -> tuple[OutputFile, ...]:
    """Hashes of the original's files, which are `inputs` where it is `checkpoint` itself.

    Of those beside its weights, the ones that `inputs` name; in the order that its own exports have
    them, since what PyTorch said of it is kept under these.
    """
    if original.samefile(checkpoint):
        return inputs
    weights = weight_files(original)
    beside = [original / item.path for item in inputs if not item.path.endswith(WEIGHTS)]
    paths = [path for path in beside if path.is_file() and path != weights.index]
    index = [] if weights.index is None else [weights.index]
    return input_records([*paths, *index, *weights.paths], cache_folder() / "digests", original)


def peaks_over(runtime: TorchRuntime, documents: Iterable[Document]) -> tuple[Peak, ...]:
    """The largest values where float16 may overflow, over some documents; frees the weights."""
    for document in documents:
        runtime.hidden(document.ids)
    runtime.rest()
    return runtime.peaks
