"""Check a release offline: every byte, and that every document in it tells the same story.

Each check yields problems, one line each, which begin with the file that is to blame.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edgeproof.artifact import Manifest
from edgeproof.errors import InputError
from edgeproof.files.hashing import file_sha256
from edgeproof.verdicts import REPORT, metrics_json, read_report
from export.release.dist import SUMS, sums_text
from export.release.notes import NOTES
from export.release.provenance import PROVENANCE, provenance_digests
from export.release.record import RECORD, Record, read_record, record_bytes
from export.release.repositories import rewritten
from export.release.sbom import SBOM, sbom_digests
from export.release.signature import UNSIGNED, Identity, signature_problems

LINE = re.compile(r"([0-9a-f]{64})  (.+)")
# Written after the files that they speak of, in this order.
DOCUMENTS = (SBOM, RECORD, PROVENANCE)


@dataclass(frozen=True)
class Release:
    """A release on disk: what SHA256SUMS says of it and what it has, path → hex digest."""

    folder: Path
    expected: dict[str, str]

    @cached_property
    def found(self) -> dict[str, str]:
        """Every plain file but SHA256SUMS and the signature, hashed."""
        return {
            name: file_sha256(self.folder / name)
            for name, fault in self._entries.items()
            if fault is None and name not in (SUMS, *UNSIGNED)
        }

    @cached_property
    def alien(self) -> dict[str, str]:
        """What no release has, path → why: links, empty folders, devices. None is followed."""
        return {name: fault for name, fault in self._entries.items() if fault is not None}

    @cached_property
    def _entries(self) -> dict[str, str | None]:
        entries: dict[str, str | None] = {}
        for place, folders, names in os.walk(self.folder):
            for name in (*folders, *names):
                path = Path(place, name)
                fault = _alien(path)
                if fault is not None or not path.is_dir():
                    entries[path.relative_to(self.folder).as_posix()] = fault
        return dict(sorted(entries.items()))

    @cached_property
    def record(self) -> Record:
        """The release's manifest.json."""
        return read_record(self.folder)


def problems(folder: Path, signer: Path | Identity | None = None) -> Iterator[str]:
    """Everything that is wrong with a release, by file; nothing, if it is as it was built.

    Raises:
        InputError: no release, or a `signer` that cannot be read.
    """
    wrong = list(content_problems(folder))
    yield from wrong
    # A signature cannot be right over files that are not: only its own damage is news then.
    yield from signature_problems(folder, None if wrong else signer)


def content_problems(folder: Path) -> Iterator[str]:
    """The same without the signature.

    Raises:
        InputError: no release.
    """
    expected, damaged = read_sums(folder / SUMS)
    release = Release(folder, expected)
    wrong = [*damaged, *_bytes(release)]
    yield from wrong
    if wrong:
        return  # what the documents say of each other would only repeat it
    for check in CHECKS:
        try:
            yield from check(release)
        except InputError as error:
            yield str(error).removeprefix(f"{folder}/")


def _alien(path: Path) -> str | None:
    """Why a release cannot have such an entry; None for files, and folders with something in."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_ISDIR(mode):
        return None if any(path.iterdir()) else "an empty folder, not part of the release"
    return None if stat.S_ISREG(mode) else "no plain file"


def read_sums(path: Path) -> tuple[dict[str, str], list[str]]:
    """What a SHA256SUMS says, path → hex digest, and what is wrong with itself.

    Raises:
        InputError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); is this a release?") from None
    sums = parse_sums(data)
    outside = [path for path in sums if ".." in Path(path).parts or Path(path).is_absolute()]
    if sums_text(sums) != data or outside:
        return sums, [f"{SUMS}: damaged, not as sha256sum writes it"]
    return sums, []


def parse_sums(data: bytes) -> dict[str, str]:
    """Path → hex digest of every line that is one."""
    matches = (LINE.fullmatch(line) for line in data.decode("utf-8", "replace").splitlines())
    return {match[2]: match[1] for match in matches if match}


def _bytes(release: Release) -> Iterator[str]:
    """Files that are missing, too many, or have other bytes; what is no file."""
    for path, fault in release.alien.items():
        yield f"{path}: {fault}"
    for path in sorted(release.expected.keys() - release.found.keys() - release.alien.keys()):
        yield f"{path}: missing, but {SUMS} names it"
    for path in sorted(release.found.keys() - release.expected.keys()):
        yield f"{path}: not part of the release, {SUMS} does not name it"
    recorded = _recorded(release)
    for path in sorted(release.expected.keys() & release.found.keys()):
        if release.found[path] == release.expected[path]:
            continue
        if recorded.get(path) == release.found[path]:
            yield f"{SUMS}: damaged, its line on {path} is not what {RECORD} says"
        else:
            yield f"{path}: changed, its SHA-256 is not the one in {SUMS}"


def _recorded(release: Release) -> dict[str, str]:
    """The digests in an intact manifest.json, to tell who is to blame."""
    if release.found.get(RECORD) != release.expected.get(RECORD, ""):
        return {}
    return {item["path"]: item["sha256"] for item in release.record["files"]}


def _record(release: Release) -> Iterator[str]:
    """manifest.json is as it is written, and names all files that are there before it."""
    if record_bytes(release.record) != (release.folder / RECORD).read_bytes():
        yield f"{RECORD}: damaged, not as it is written"
    named = {item["path"]: item["sha256"] for item in release.record["files"]}
    yield from _differences(RECORD, named, release, (RECORD, PROVENANCE))


def _verdicts(release: Release) -> Iterator[str]:
    """What manifest.json says of the variants is what parity.json says."""
    compared = {item.key: item for item in read_report(release.folder / REPORT).compared}
    for item in release.record["variants"]:
        key = item["format"], item["variant"]
        said = compared.get(key)
        if said is None:
            yield f"{REPORT}: says nothing of {' '.join(key)}, which is released"
            continue
        expected = (said.verdict, metrics_json(said.metrics), said.manifest)
        if (item["verdict"], item["metrics"], item["manifest"]) != expected:
            yield f"{RECORD}: {said.name} did not come out like that, says {REPORT}"


def _manifests(release: Release) -> Iterator[str]:
    """Each variant's own manifest is the compared one, and its files are there."""
    digests = {(i["format"], i["variant"]): i["manifest"] for i in release.record["variants"]}
    for repository in release.record["repositories"]:
        for variant in repository["variants"]:
            path = f"{repository['name']}/edgeproof/{variant}.json"
            if release.found.get(path) != digests.get((repository["format"], variant)):
                yield f"{path}: not the manifest that was compared"
                continue
            data = (release.folder / path).read_bytes()
            for output in Manifest.from_json(data, path).outputs:
                file = f"{repository['name']}/{output.path}"
                if release.found.get(file) != output.sha256:
                    yield from _differs(file, output.path, repository["format"], path)


def _differs(file: str, path: str, form: str, manifest: str) -> Iterator[str]:
    """A file of a repository that is not what a variant wrote at `path`; its format may do that."""
    try:
        if path in rewritten(form):
            return
    except InputError as error:
        yield f"{file}: whether it may differ from {manifest} only its format says: {error}"
        return
    yield f"{file}: not the file that was compared, says {manifest}"


def _provenance(release: Release) -> Iterator[str]:
    named = _read(release, PROVENANCE, provenance_digests)
    yield from _differences(PROVENANCE, named, release, (PROVENANCE,))


def _sbom(release: Release) -> Iterator[str]:
    named = _read(release, SBOM, sbom_digests)
    yield from _differences(SBOM, named, release, (*DOCUMENTS, NOTES))


def _read(release: Release, name: str, parse: Callable[[bytes], dict[str, str]]) -> dict[str, str]:
    path = release.folder / name
    try:
        return parse(path.read_bytes())
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        raise InputError(f"{name}: missing or damaged") from None


def _differences(
    document: str, named: dict[str, str], release: Release, later: tuple[str, ...]
) -> Iterator[str]:
    """Files that a document does not name rightly; `later` ones it cannot know."""
    files = {path: digest for path, digest in release.found.items() if path not in later}
    for path in sorted({*files, *named}):
        if files.get(path) != named.get(path):
            yield f"{document}: does not name {path} as it is"


CHECKS = (_record, _verdicts, _manifests, _provenance, _sbom)
