"""Check the receipt of an audit: that its report and its files are those that it is of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edgeproof.errors import InputError
from edgeproof.files.hashing import file_sha256
from edgeproof.verdicts import (
    RECEIPT,
    REPORT,
    Audited,
    DamagedEntry,
    Receipt,
    read_receipt,
    read_report,
)
from export.release.signature import UNSIGNED, Identity, signature_problems

Wanted = Sequence[Path]


def is_receipt(folder: Path) -> bool:
    """Whether a folder is an audit's receipt, not a release."""
    return (folder / RECEIPT).is_file()


def receipt_problems(
    folder: Path, files: Wanted = (), signer: Path | Identity | None = None
) -> Iterator[str]:
    """Everything that is wrong with a receipt, or with `files` that it should be of.

    Raises:
        InputError: a `signer` or a file that cannot be read.
    """
    wrong = [*receipt_content_problems(folder), *_strangers(folder, files)]
    yield from wrong
    # A signature cannot be right over files that are not: only its own damage is news then.
    yield from signature_problems(folder, None if wrong else signer)


def receipt_content_problems(folder: Path) -> Iterator[str]:
    """The same without the signature and without files."""
    known = {RECEIPT, REPORT, *UNSIGNED}
    plain = True
    for path in sorted(folder.iterdir()):
        if path.name not in known:
            yield f"{path.name}: not part of the receipt"
        elif path.is_symlink() or not path.is_file():
            plain = False
            yield f"{path.name}: no plain file"
    if not plain:
        return  # of a pipe or a device nobody would see the end
    try:
        receipt = read_receipt(folder)
        if file_sha256(folder / REPORT) != receipt.report:
            yield f"{REPORT}: changed, its SHA-256 is not the one in {RECEIPT}"
            return
        yield from _contradictions(folder, receipt)
    except InputError as error:
        yield str(error).removeprefix(f"{folder}/")


def _contradictions(folder: Path, receipt: Receipt) -> Iterator[str]:
    """What the receipt says of a model and the report does not."""
    report = read_report(folder / REPORT)
    said = {item.key: item for item in report.compared}
    for item in receipt.audited:
        found = said.pop((item.format, item.name), None)
        if found is None:
            yield f"{RECEIPT}: {item.name} is not in {REPORT}"
        elif (found.verdict, found.files) != (item.verdict, item.files):
            yield f"{RECEIPT}: {item.name} is another file, or came out otherwise, says {REPORT}"
    for _, name in said:
        yield f"{RECEIPT}: does not name {name}, which {REPORT} has"
    if receipt.damaged is not None:
        told = {(item.name, item.reason) for item in receipt.damaged}
        reported = {(item.folder, item.reason) for item in report.unreadable}
        for name, _ in sorted(told - reported):
            yield f"{RECEIPT}: {name} is damaged, of which {REPORT} says otherwise"
        for name, _ in sorted(reported - told):
            yield f"{RECEIPT}: does not say that {name} is damaged, as {REPORT} does"
    if report.model != receipt.against:
        yield f"{RECEIPT}: the original is {report.model}, says {REPORT}"


def _strangers(folder: Path, files: Wanted) -> Iterator[str]:
    """Files that are none of those that were audited."""
    if not files:
        return
    try:
        receipt = read_receipt(folder)
    except InputError:
        return  # it is said already
    for path in files:
        if file_of(receipt, path) is not None:
            continue
        names = {Path(file.path).name for item in _all(receipt) for file in item.files}
        what = "changed since it was audited" if path.name in names else "not one that was audited"
        yield f"{path}: {what}, its SHA-256 is not in {RECEIPT}"


def file_of(receipt: Receipt, path: Path) -> Audited | DamagedEntry | None:
    """The model, damaged or not, of which a file is a part, by its bytes; None of a stranger.

    Raises:
        InputError: the file cannot be read.
    """
    digest = file_sha256(path)
    return next((a for a in _all(receipt) if any(f.sha256 == digest for f in a.files)), None)


def _all(receipt: Receipt) -> tuple[Audited | DamagedEntry, ...]:
    return (*receipt.audited, *(receipt.damaged or ()))
