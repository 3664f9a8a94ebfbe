"""`python -m runtimes.imatrix`: measure which weights matter, for `export.gguf --imatrix`."""

from __future__ import annotations

from pathlib import Path

import click

from edgeproof.command import EdgeproofCommand, progress
from runtimes.computing import CPU, Computing, device_option
from runtimes.threads import threads_option


@click.command(cls=EdgeproofCommand, name="imatrix")
@click.option(
    "--checkpoint",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Checkpoint folder; artifacts/run.json names those that were exported.",
)
@click.option(
    "--out",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The file to write, .gguf.",
)
@click.option(
    "--calibration",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="UTF-8 text to measure on; by default texts that the model itself generates.",
)
@click.option(
    "--tokens", type=click.IntRange(1), default=8192, show_default=True, help="At most so many."
)
@click.option("--force", is_flag=True, help="Compute it again even if it is in the cache.")
@device_option
@threads_option
def main(
    checkpoint: Path,
    out: Path,
    calibration: Path | None,
    tokens: int,
    force: bool,
    device: str,
    threads: int,
) -> None:
    """Write the importance matrix of a checkpoint, in llama.cpp's GGUF format.

    For every matrix of every layer: the sum of squares of each input channel over a text, computed
    in PyTorch float32.

    \b
    Example:
      python -m runtimes.imatrix --checkpoint ./my-model --out imatrix.gguf
      python -m export.gguf --model ./my-model --dtype q4_0 --imatrix imatrix.gguf
    """  # noqa: D301
    from edgeproof.files.atomic import write_atomic
    from edgeproof.files.cache import keep
    from edgeproof.files.once import once
    from edgeproof.files.space import require_files, require_spared
    from runtimes.imatrix.calibration import read_calibration
    from runtimes.imatrix.matrix import cached_path, compute
    from runtimes.registry import chosen_device, open_reference, reference_version

    require_files(out)
    require_spared(out, reads=[calibration])
    chosen = read_calibration(calibration, tokens)
    version, device = reference_version(), chosen_device(device)
    named = version if device == CPU else f"{version}, {device}"
    cached = cached_path(checkpoint, named, chosen)
    reused = cached.exists() and not force

    def find() -> bytes | None:
        return cached.read_bytes() if cached.exists() else None

    def make() -> bytes:
        chosen.check()
        click.echo(f"importance matrix: {tokens} tokens of {chosen.dataset} in PyTorch …", err=True)
        reference = open_reference(checkpoint, threads, Computing(device=device))
        with progress("imatrix", tokens) as advance:
            computed = compute(reference, chosen, advance)
        keep(cached, computed)
        return computed

    write_atomic(out, make() if force else once(cached, find, make))
    click.echo(f"{out}  ({chosen.dataset}{', from the cache' if reused else ''})")


if __name__ == "__main__":
    main()
