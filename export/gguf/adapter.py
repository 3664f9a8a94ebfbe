"""`python -m export.gguf.adapter`: a PEFT LoRA as llama.cpp's own adapter file, not merged."""

from __future__ import annotations

from pathlib import Path

import click

from edgeproof.command import NAMED, EdgeproofCommand
from edgeproof.errors import InputError
from edgeproof.files.atomic import write_atomic
from edgeproof.files.space import require_files, require_spared
from export.checkpoint import open_checkpoint
from export.gguf.adapter_file import adapter_bytes
from export.sources import resolve
from export.sources.adapters.base import check_base, find_base
from export.sources.adapters.binding import open_adapter
from export.sources.adapters.place import find_adapter


@click.command(cls=EdgeproofCommand, name="gguf-adapter")
@click.option("--adapter", required=True, type=NAMED, help="PEFT LoRA: folder or hub id.")
@click.option(
    "--model",
    "-m",
    type=NAMED,
    help="Its base. Default: the one that it names, where that is here.",
)
@click.option("--revision", type=NAMED, help="Branch, tag or commit of a hub id.")
@click.option(
    "--out",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The file, NAME.gguf.",
)
def main(adapter: str, model: str | None, revision: str | None, out: Path) -> None:
    """Write a PEFT LoRA as llama.cpp's GGUF adapter: `llama-cli -m base.gguf --lora NAME.gguf`.

    \b
    Example:
      edgeproof gguf-adapter --model ./base --adapter ./my-lora --out my-lora.gguf
    """  # noqa: D301
    require_files(out)
    require_spared(out, reads=[Path(model)] if model else [])
    _require_name(out)
    opened = open_adapter(find_adapter(adapter).folder, 1.0)
    if model is None:
        if revision:
            raise InputError("--revision needs --model")
        model, revision = find_base(opened.config)
    base = resolve(model, revision)
    check_base(base, opened.config)
    checkpoint = open_checkpoint(base.path)
    data = adapter_bytes(checkpoint, opened)
    write_atomic(out, data)
    click.echo(f"{out}  {len(data) / 1e6:.1f} MB  (llama.cpp adapter of {base.label})")


def _require_name(out: Path) -> None:
    if out.suffix != ".gguf":
        raise InputError(f"{out}: llama.cpp's adapters are called NAME.gguf")


if __name__ == "__main__":
    main()
