"""`python -m export.release`: build a release from what passed, and prove it."""

from __future__ import annotations

import re
from pathlib import Path

import click

from export import __version__
from export.artifact.run_record import load_run_record
from export.command import EdgeproofCommand, run_main
from export.errors import InputError
from export.release.report import REPORT, Key, read_report

VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
NAMESPACE = "your-name"


@click.group(name="release")
def main() -> None:
    """Turn the exports that passed into downloads that prove themselves."""


@main.command(cls=EdgeproofCommand)
@click.argument("root", type=click.Path(file_okay=False, path_type=Path), default=Path("artifacts"))
@click.option("--model", "-m", "models", multiple=True, help="Folders in ROOT. Default: all.")
@click.option("--version", "version", default=__version__, show_default=True, help="Its version.")
@click.option(
    "--out",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("dist"),
    show_default=True,
    help="The release is the folder OUT/<model>-<version>.",
)
@click.option(
    "--exclude", multiple=True, metavar="FORMAT/VARIANT", help="Leave this out. Repeatable."
)
@click.option("--allow-degraded", is_flag=True, help="As if the plan allowed it of all variants.")
@click.option(
    "--previous",
    type=click.Path(exists=True, path_type=Path),
    help="The release before, or its manifest.json: what the notes compare with.",
)
@click.option(
    "--namespace",
    default=NAMESPACE,
    show_default=True,
    help="User or organization on the hub, for the examples in model cards.",
)
@click.option(
    "--checkpoint",
    type=click.Path(file_okay=False, path_type=Path),
    help="The checkpoint's folder, for its model card. Default: as ROOT/run.json says.",
)
@click.option("--no-archives", is_flag=True, help="No archives for GitHub Releases: half the size.")
def build(
    root: Path,
    models: tuple[str, ...],
    version: str,
    out: Path,
    exclude: tuple[str, ...],
    allow_degraded: bool,
    previous: Path | None,
    namespace: str,
    checkpoint: Path | None,
    no_archives: bool,
) -> None:
    r"""Write releases of what `make export-all` left in ROOT.

    What is not compared, was changed since, FAILs, or is DEGRADED where the plan does not allow
    it, is refused with exit code 1.

    \b
    Examples:
      python -m export.release build --version 1.0
      python -m export.release build --exclude onnx/q4 --previous dist/M-0.9
    """
    from export.release import dist
    from export.release.card import source_card
    from export.release.record import read_record
    from export.release.selection import not_compared, select

    if not VERSION.fullmatch(version):
        raise InputError(f"--version {version}: use letters, digits, '.', '_', '+' and '-'")
    options = dist.Options(
        version, namespace, not no_archives, previous=read_record(previous) if previous else None
    )
    excluded = [_key(text) for text in exclude]
    names = models or tuple(sorted(path.parent.name for path in root.glob(f"*/{REPORT}")))
    if not names:
        raise InputError(f"{root}: no {REPORT} below it; make export-all writes them")
    for name in names:
        folder = root / name
        report = read_report(folder / REPORT)
        released = select(folder, report, excluded, allow_degraded=allow_degraded)
        for left_out in not_compared(folder, report):
            click.echo(f"left out: {left_out} (not compared)", err=True)
        source = source_card(
            released[0].artifact.manifest.model, checkpoint or _checkpoint(root, name)
        )
        if source.license is None:
            click.echo(f"warning: {name}: its model card names no licence", err=True)
        click.echo(f"release: {dist.build(folder, report, released, source, out, options)}")


def _key(text: str) -> Key:
    form, slash, variant = text.partition("/")
    if not slash:
        raise InputError(f"--exclude {text}: not FORMAT/VARIANT, for example onnx/q4")
    return form, variant


def _checkpoint(root: Path, label: str) -> Path:
    for run in load_run_record(root).models:
        if run.label == label:
            return Path(run.checkpoint)
    raise InputError(f"{root}/run.json does not name {label}; --checkpoint names its folder")


if __name__ == "__main__":
    run_main(main)
