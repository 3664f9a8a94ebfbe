"""`edgeproof demo`: build the demo's folder, and serve it on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from edgeproof.artifact import Artifact, open_artifact
from edgeproof.artifact.run_record import load_run_record
from edgeproof.command import EdgeproofCommand, EdgeproofGroup, root_option
from edgeproof.errors import InputError
from runtimes.browser.server import Site, make_server
from runtimes.demo.build import SITE, build
from runtimes.formats import reader_of

PORT = 8017


@click.group(cls=EdgeproofGroup, name="demo")
def main() -> None:
    """A chat page that runs exports in the reader's browser: built once, served anywhere."""


@main.command(cls=EdgeproofCommand, name="build")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path))
@root_option("; its run.json names the artifacts if none are given")
def build_command(folder: Path, artifacts: tuple[Path, ...], root: Path) -> None:
    """Write page, engines and ARTIFACTS into FOLDER, for any static host.

    Without ARTIFACTS it takes those of the last export that a browser can run. MLC weights need
    their model library.

    \b
    Examples:
      edgeproof demo build build/demo
      edgeproof demo build build/demo artifacts/my-model/onnx/q8 artifacts/my-model/gguf/q8_0
    """  # noqa: D301
    models = build(folder, artifacts or _exported(root), click.echo)
    for model in models:
        verdict = model.verdict or "not compared"
        click.echo(f"{model.format:4} {model.dtype:12} {model.bytes / 1e6:7.1f} MB  {verdict}")
    click.echo(f"{folder}: serve it with `edgeproof demo serve {folder}`")


@main.command(cls=EdgeproofCommand, name="serve", takes_interrupts=True)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True)
@click.option(
    "--threads/--no-threads",
    default=True,
    show_default=True,
    help="Send the COOP and COEP headers, without which WebAssembly has one thread.",
)
def serve_command(folder: Path, port: int, threads: bool) -> None:
    """Serve a built FOLDER on 127.0.0.1 until Ctrl-C."""
    if not (folder / SITE).is_file():
        raise InputError(f"{folder}: no {SITE}; run `edgeproof demo build {folder}` first")
    try:
        server = make_server(Site({"/": folder}, isolated=threads), port)
    except OSError as error:
        raise InputError(f"port {port}: {error.strerror}; choose another with --port") from None
    click.echo(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


def _exported(root: Path) -> list[Path]:
    """The last export's artifacts that a browser runs, in the order of the plan."""
    record = load_run_record(root)
    paths = [root / item.path for model in record.models for item in model.everything]
    return [path for path in paths if _runs(open_artifact(path))]


def _runs(artifact: Artifact) -> bool:
    engine = reader_of(artifact).engine
    files = [item.path for item in artifact.manifest.outputs]
    return engine is not None and engine.lacks(files) is None


if __name__ == "__main__":
    main()
