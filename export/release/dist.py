"""Build a release: `dist/<model>-<version>/`, written atomically from what passed.

Nothing in its bytes depends on the clock, on folders or on the locale; what is big is linked or
streamed.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeproof.artifact import MANIFEST, HashedFile
from edgeproof.errors import InputError
from edgeproof.files.atomic import atomic_folder
from edgeproof.files.hashing import CHUNK_BYTES, OutputFile
from edgeproof.files.lock import exclusive
from edgeproof.files.space import require_space
from edgeproof.verdicts import (
    ELSEWHERE,
    EVALUATION,
    PAGE,
    REPORT,
    ParityReport,
    read_scores,
    read_short_runs,
)
from export.checkpoint.model_card import MODEL_CARD
from export.publication import Content, Released, Repository, safe_name
from export.release.archives import PART_BYTES, write_archive
from export.release.card import SourceCard, model_card
from export.release.notes import NOTES, release_notes
from export.release.provenance import PROVENANCE, Input, provenance_bytes
from export.release.record import RECORD, Record, record_bytes, release_record, with_files
from export.release.repositories import repositories
from export.release.sbom import SBOM, sbom_bytes

ARCHIVES = "archives"
SUMS = "SHA256SUMS"
SMALL_BYTES = 16 << 20  # cards, notes, records: room for them on the disk


@dataclass(frozen=True)
class Options:
    """What the command line asks for; see its help texts.

    `command` is that command line, with folders named by their role.
    """

    version: str
    namespace: str
    command: tuple[str, ...]
    archives: bool = True
    part_bytes: int = PART_BYTES
    previous: Record | None = None


class Dist:
    """The folder that is being written, with the hash of every file in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, OutputFile] = {}

    def add(self, path: str, content: Content, digest: str | None = None) -> None:
        """Write bytes, or copy a file, which must have this digest if one is given.

        Not a hard link: onnx refuses external data with several, in the artifact as well.
        """
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        file = HashedFile(target, path)
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as source:
            shutil.copyfileobj(source, file, CHUNK_BYTES)
        self.files[path] = file.finish()
        if digest not in (None, self.files[path].sha256):
            raise InputError(f"{path}: its artifact changed during the build; build again")

    def written(self, outputs: Iterable[OutputFile], folder: str) -> None:
        """Take over files that are in `folder` already."""
        for item in outputs:
            path = f"{folder}/{item.path}"
            self.files[path] = OutputFile(path, item.bytes, item.sha256)

    def digests(self) -> dict[str, str]:
        """Path → hex SHA-256."""
        return {path: item.sha256 for path, item in self.files.items()}


def sums_text(digests: Mapping[str, str]) -> bytes:
    """SHA256SUMS, as sha256sum writes it, sorted."""
    return "".join(f"{digest}  {path}\n" for path, digest in sorted(digests.items())).encode()


def build(
    model_folder: Path,
    report: ParityReport,
    released: Sequence[Released],
    source: SourceCard,
    out: Path,
    options: Options,
) -> Path:
    """Write the release below `out`; returns its folder.

    Raises:
        InputError: two variants that exclude each other, or a disk that is full or too small.
    """
    name = safe_name(source.model.name)
    target = out / f"{name}-{options.version}"
    laid_out = repositories(released)
    short_runs = read_short_runs(model_folder / ELSEWHERE)
    scores = read_scores(model_folder / EVALUATION)
    copies = 1 + options.archives
    require_space(target, SMALL_BYTES + copies * sum(item.bytes for item in released))
    with exclusive(target), atomic_folder(target) as folder:
        dist = Dist(folder)
        for repository in laid_out:
            card = model_card(repository, source, report, options.namespace, short_runs, scores)
            _write_repository(dist, repository, card)
        archives = {}
        for repository in laid_out if options.archives else ():
            for item in repository.released:
                archives[item.compared.name] = _archive(dist, name, repository, item, options)
        further = [name for name, found in ((ELSEWHERE, short_runs), (EVALUATION, scores)) if found]
        for path in (REPORT, PAGE, *further):
            dist.add(path, _report_file(model_folder / path))
        record = release_record(
            options.version, source.model, source.license, report, laid_out, archives
        )
        dist.add(SBOM, sbom_bytes(record, source.model, list(dist.files.values())))
        dist.add(NOTES, release_notes(record, options.previous))
        dist.add(RECORD, record_bytes(with_files(record, dist.files.values())))
        inputs = _inputs(source, released, dist, options)
        dist.add(PROVENANCE, provenance_bytes(options.command, inputs, dist.files.values()))
        dist.add(SUMS, sums_text(dist.digests()))
    return target


def _inputs(
    source: SourceCard, released: Sequence[Released], dist: Dist, options: Options
) -> Iterator[Input]:
    for item in source.model.inputs:
        yield Input(f"checkpoint/{item.path}", item.sha256)
    for release in released:
        compared, made_from = release.compared, release.artifact.manifest.model.inputs
        for item in made_from if made_from != source.model.inputs else ():
            yield Input(f"recovered/{compared.format}/{compared.variant}/{item.path}", item.sha256)
        yield Input(f"artifacts/{compared.format}/{compared.variant}/{MANIFEST}", compared.manifest)
    for path in (item for item in (REPORT, ELSEWHERE, EVALUATION) if item in dist.files):
        yield Input(path, dist.files[path].sha256)
    if options.previous is not None:
        digest = hashlib.sha256(record_bytes(options.previous)).hexdigest()
        yield Input(f"previous/{RECORD}", digest)


def _write_repository(dist: Dist, repository: Repository, card: bytes) -> None:
    known = {
        item.artifact.path / output.path: output.sha256
        for item in repository.released
        for output in item.artifact.manifest.outputs
    }
    for path, content in {**repository.files, MODEL_CARD: card}.items():
        digest = known.get(content) if isinstance(content, Path) else None
        dist.add(f"{repository.name}/{path}", content, digest)


def _archive(
    dist: Dist, name: str, repository: Repository, item: Released, options: Options
) -> tuple[OutputFile, ...]:
    """A zip with what the variant needs of its repository."""
    variant = item.compared.variant
    of_others = {p for other, own in repository.own.items() if other != variant for p in own}
    members = {
        f"{repository.name}/{path}": dist.folder / repository.name / path
        for path in {*repository.files, MODEL_CARD} - of_others
    }
    folder = dist.folder / ARCHIVES
    folder.mkdir(exist_ok=True)
    stem = f"{name}-{options.version}-{repository.format}-{variant}"
    parts = write_archive(folder, stem, members, options.part_bytes)
    dist.written(parts, ARCHIVES)
    return tuple(OutputFile(f"{ARCHIVES}/{part.path}", part.bytes, part.sha256) for part in parts)


def _report_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); python -m runtimes.parity writes it"
        ) from None
