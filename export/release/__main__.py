"""`python -m export.release`: build a release from what passed, and prove it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import click

from edgeproof import __version__
from edgeproof.artifact.run_record import load_run_record
from edgeproof.command import EdgeproofCommand, EdgeproofGroup
from edgeproof.display import printable
from edgeproof.errors import GateError, InputError
from edgeproof.files.space import require_folder
from edgeproof.verdicts import REPORT, Key, read_receipt, read_report

VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
# What the hub's client takes in a repository's name (`validate_repo_id` of huggingface_hub).
OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
NAMESPACE = "your-name"

log = logging.getLogger("export.release")


@click.group(cls=EdgeproofGroup, name="release")
def main() -> None:
    """Turn the exports that passed into downloads that prove themselves."""


@main.command(
    cls=EdgeproofCommand,
    kept="the releases that are finished are kept; the same command builds the others",
)
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
@click.option(
    "--key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Sign it with this private EC key (PEM), as `sign` does.",
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
    key: Path | None,
    no_archives: bool,
) -> None:
    """Write releases of what `make export-all` left in ROOT.

    What is not compared, was changed since, FAILs, or is DEGRADED where the plan does not allow
    it, is refused with exit code 1.

    \b
    Examples:
      python -m export.release build --version 1.0
      python -m export.release build --exclude onnx/q4 --previous dist/M-0.9
    """  # noqa: D301
    from export.publication import safe_name
    from export.release import dist
    from export.release.card import source_card
    from export.release.record import read_record
    from export.release.selection import not_compared, select
    from export.release.signature import require_key
    from export.release.signature import sign as sign_release
    from export.release.superseded import superseded

    if not VERSION.fullmatch(version):
        raise InputError(f"--version {version}: use letters, digits, '.', '_', '+' and '-'")
    if not OWNER.fullmatch(namespace):
        raise InputError(f"--namespace {namespace}: no name of a user or organization of the hub")
    command = ["python", "-m", "export.release", "build", "ROOT", "--version", version]
    command += ["--namespace", namespace, *(f"--exclude={name}" for name in exclude)]
    command += ["--allow-degraded"] * allow_degraded + ["--no-archives"] * no_archives
    command += ["--previous", "PREVIOUS"] if previous else []
    options = dist.Options(
        version,
        namespace,
        tuple(command),
        archives=not no_archives,
        previous=read_record(previous) if previous else None,
    )
    require_folder(out)
    if key is not None:
        require_key(key)
    excluded = [_key(text) for text in exclude]
    names = models or tuple(sorted(path.parent.name for path in root.glob(f"*/{REPORT}")))
    if not names:
        raise InputError(f"{root}: no {REPORT} below it; make export-all writes them")
    prepared: dict[str, tuple[str, Callable[[], Path]]] = {}  # by the release's name
    for name in names:
        folder = root / name
        report = read_report(folder / REPORT)
        released = select(folder, report, excluded, allow_degraded=allow_degraded)
        for left_out in not_compared(folder, report):
            click.echo(f"left out: {left_out} (not compared)", err=True)
        worse = superseded(released)
        for left_out, better in worse.items():
            click.echo(
                f"left out: {left_out} ({better} has its file names, and is better)", err=True
            )
        released = tuple(item for item in released if item.compared.name not in worse)
        source = source_card(
            released[0].artifact.manifest.model, checkpoint or _checkpoint(root, name)
        )
        if source.license is None:
            click.echo(f"warning: {name}: its model card names no licence", err=True)
        published = safe_name(source.model.name)
        if published in prepared:
            raise InputError(
                f"{root / prepared[published][0]} and {folder} are both of a model"
                f" {source.model.name}, and one release would replace the other: export one with"
                " --name, or build them apart with --model and --out"
            )
        prepared[published] = (
            name,
            partial(dist.build, folder, report, released, source, out, options),
        )
    for _, make in prepared.values():
        release = make()
        if key is not None:
            sign_release(release, key)
        click.echo(f"release: {release}")
        log.info("built", extra={"release": str(release), "signed": key is not None})


@main.command(cls=EdgeproofCommand)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--key", type=click.Path(dir_okay=False, path_type=Path), help="Private EC key (PEM)."
)
@click.option("--sigstore", is_flag=True, help="By CI's own identity, without a key.")
def sign(folder: Path, key: Path | None, sigstore: bool) -> None:
    """Sign a release, or the receipt of an audit, in the OpenSSF model signing format.

    \b
    A key:
      openssl ecparam -name prime256v1 -genkey -noout -out key.pem
      openssl ec -in key.pem -pubout -out key.pub
    """  # noqa: D301
    from export.release import signature
    from export.release.receipt import is_receipt, receipt_content_problems
    from export.release.verify import content_problems

    if (key is None) != sigstore:
        raise InputError("give --key FILE or --sigstore")
    check = receipt_content_problems if is_receipt(folder) else content_problems
    _refuse(folder, check(folder))
    signature.sign(folder, key)
    click.echo(f"signed: {folder / signature.SIGNATURE}")


@main.command(cls=EdgeproofCommand)
@click.argument(
    "folders",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option(
    "--key", type=click.Path(dir_okay=False, path_type=Path), help="Public key of the signer."
)
@click.option("--identity", help="Identity of a sigstore signature, such as a workflow's URL.")
@click.option("--issuer", help="Who vouches for it (OIDC issuer).")
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file that the receipt of an audit should be of. Repeatable.",
)
def verify(
    folders: tuple[Path, ...],
    key: Path | None,
    identity: str | None,
    issuer: str | None,
    files: tuple[Path, ...],
) -> None:
    """Check every byte of releases, their documents and their signatures, offline.

    FOLDERS may be receipts of audits too. Exit code 1: something was changed; a line for each file
    that is to blame.

    \b
    Examples:
      python -m export.release verify dist/M-1.0 --key key.pub
      python -m export.release verify dist/M-1.0 --issuer https://token.actions.githubusercontent.com
        --identity https://github.com/o/r/.github/workflows/release.yml@refs/tags/v1.0
      python -m export.release verify receipt --key key.pub --file model-Q4_K_M.gguf
    """  # noqa: D301
    from export.release.receipt import is_receipt, receipt_problems
    from export.release.signature import SIGNATURE, Identity
    from export.release.verify import problems

    if (identity is None) != (issuer is None):
        raise InputError("--identity needs --issuer, and the other way round")
    signer = key or (Identity(identity, issuer) if identity and issuer else None)
    how = "is right" if signer else "was not checked: give --key or --identity"
    for folder in folders:
        if files and not is_receipt(folder):
            raise InputError(f"{folder}: no receipt of an audit; --file is for these")
    for folder in folders:
        signed = f"its signature {how}" if (folder / SIGNATURE).is_file() else "not signed"
        if is_receipt(folder):
            _refuse(folder, receipt_problems(folder, files, signer))
            _show_receipt(folder, files, signed)
        else:
            _refuse(folder, problems(folder, signer))
            click.echo(f"{folder}: as it was built; {signed}")
        log.info("verified", extra={"release": str(folder), "signer": str(signer or "")})


@main.command(
    cls=EdgeproofCommand, kept="what arrived stays there unseen; the same command sends the rest"
)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--to",
    "addresses",
    multiple=True,
    required=True,
    help="dir:/path, hub:name, hub:name/repository, github:owner/repo, or a URL that fsspec"
    " knows, such as s3://bucket/folder. Repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be done; change nothing.")
@click.option(
    "--key", type=click.Path(dir_okay=False, path_type=Path), help="Public key of the signer."
)
@click.option(
    "--public",
    is_flag=True,
    help="Repositories on the hub become public; without it, new ones stay private.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Change a GitHub release that is public already; without it, that is refused.",
)
def publish(
    folder: Path,
    addresses: tuple[str, ...],
    dry_run: bool,
    key: Path | None,
    public: bool,
    replace: bool,
) -> None:
    """Upload a release that verifies; it becomes visible when all of it has arrived.

    Only what differs is uploaded. After an interruption the same command goes on.

    \b
    Examples:
      python -m export.release publish dist/M-1.0 --to dir:/srv/models --dry-run
      python -m export.release publish dist/M-1.0 --to hub:my-name --to github:me/models
    """  # noqa: D301
    from export.release.publish.destinations import open_destination
    from export.release.publish.plan import load_release
    from export.release.verify import problems

    _refuse(folder, problems(folder, key))
    publication = load_release(folder, public=public, replace=replace)
    for address in addresses:
        destination = open_destination(publication, address)
        for plan in destination.plans():
            if dry_run:
                click.echo("\n".join(plan.lines()))
                continue
            destination.carry_out(plan, click.echo)
            click.echo(f"published: {plan.place} ({len(plan.keep)} files were there already)")
            facts = {"uploaded": len(plan.upload), "kept": len(plan.keep)}
            log.info("published", extra={"release": str(folder), "place": plan.place, **facts})


def _show_receipt(folder: Path, files: Iterable[Path], signed: str) -> None:
    """What a receipt that is as it was written says."""
    from export.release.receipt import file_of

    receipt = read_receipt(folder)
    click.echo(f"{folder}: as it was written; {signed}")
    for item in receipt.audited:
        against = f"compared with {printable(receipt.against)} on {printable(receipt.day)}"
        click.echo(f"  {printable(item.name)}: {item.verdict.value}, {against}")
    for broken in receipt.damaged or ():
        click.echo(f"  {printable(broken.name)}: FAIL, damaged: {printable(broken.reason)}")
    for path in files:
        found = file_of(receipt, path)
        click.echo(f"  {path}: of {printable(found.name) if found else 'nothing'}")


def _refuse(folder: Path, problems: Iterable[str]) -> None:
    found = list(problems)
    if found:
        raise GateError("\n  ".join([f"{folder} is not what was built:", *found]))


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
    main()
