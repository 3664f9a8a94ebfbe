"""Any fsspec URL (s3://bucket/prefix, gs://, memory:// …): the release as <URL>/<release>/.

Object stores have no rename: everything is uploaded below a hidden prefix and read back, then
copied into place by the store itself, SHA256SUMS last. While that is missing there is no release.
"""

from __future__ import annotations

import hashlib
import sys
from functools import partial
from typing import Any

from edgeproof.errors import InputError
from edgeproof.files.hashing import CHUNK_BYTES
from export.release.dist import SUMS
from export.release.publish.folder import STAGING
from export.release.publish.plan import PublishPlan, Say, Upload, VerifiedRelease, compare
from export.release.publish.retries import DamagedTransferError, persist
from export.release.verify import parse_sums


class Objects:
    """A destination behind fsspec; credentials and options are those of its own environment."""

    def __init__(self, publication: VerifiedRelease, url: str) -> None:
        self._files = publication.files
        self._url = url
        self._fs, root = _open(url)
        root = root.rstrip("/")
        self._final = f"{root}/{publication.name}"
        self._staging = f"{root}/{STAGING}{publication.name}"

    def plans(self) -> list[PublishPlan]:
        """Compare with the SHA256SUMS that is there; what it does not name counts as unknown."""
        there: dict[str, str | None] = dict.fromkeys(self._listing(self._final))
        if SUMS in there:
            data: bytes = self._try(SUMS, lambda: self._fs.cat_file(f"{self._final}/{SUMS}"))
            there |= {path: sum_ for path, sum_ in parse_sums(data).items() if path in there}
            there[SUMS] = hashlib.sha256(data).hexdigest()
        for path in there.keys() & {item.path for item in self._files if _small(item)}:
            there[path] = self._try(path, partial(self._digest, f"{self._final}/{path}"))
        return [compare(f"{self._url.rstrip('/')}", self._files, there)]

    def carry_out(self, plan: PublishPlan, say: Say) -> None:
        """Upload, read back, copy into place, tidy up."""
        if not plan.nothing:
            staged = self._listing(self._staging)
            for item in plan.upload:
                self._try(item.path, partial(self._stage, item, staged))
                say(f"uploaded: {item.path}")
            self._show(plan)
        if self._listing(self._staging):
            self._try("tidying up", lambda: self._fs.rm(self._staging, recursive=True))

    def _stage(self, item: Upload, staged: dict[str, int]) -> None:
        path = f"{self._staging}/{item.path}"
        if staged.pop(item.path, None) == item.bytes and self._digest(path) == item.sha256:
            return
        self._fs.put_file(str(item.source), path)
        if self._digest(path) != item.sha256:
            raise DamagedTransferError("read back, it is not what was sent")

    def _show(self, plan: PublishPlan) -> None:
        self._drop(SUMS)
        for item in sorted(plan.upload, key=lambda item: item.path == SUMS):
            self._try(item.path, partial(self._copy, item))
        for path in plan.remove:
            self._drop(path)

    def _copy(self, item: Upload) -> None:
        final = f"{self._final}/{item.path}"
        self._fs.cp_file(f"{self._staging}/{item.path}", final)
        self._fs.invalidate_cache()
        if self._fs.info(final)["size"] != item.bytes:
            raise DamagedTransferError("its copy has another size")

    def _drop(self, path: str) -> None:
        if path in self._listing(self._final):
            self._try(path, lambda: self._fs.rm_file(f"{self._final}/{path}"))

    def _listing(self, prefix: str) -> dict[str, int]:
        """Path below the prefix → size."""

        def find() -> dict[str, Any]:
            self._fs.invalidate_cache()
            found: dict[str, Any] = self._fs.find(prefix, detail=True)
            return found

        found = self._try(prefix, find)
        skip = len(prefix.lstrip("/")) + 1
        return {path.lstrip("/")[skip:]: info["size"] for path, info in found.items()}

    def _digest(self, path: str) -> str:
        digest = hashlib.sha256()
        with self._fs.open(path, "rb", block_size=CHUNK_BYTES, cache_type="none") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def _try(self, what: str, call: Any) -> Any:
        return persist(f"{self._url}: {what}", call, _failures())


def _failures() -> tuple[type[Exception], ...]:
    """Fsspec's stores raise `OSError`, but for what botocore finds out before it asks S3."""
    botocore = sys.modules.get("botocore.exceptions")
    return (OSError, botocore.BotoCoreError) if botocore else (OSError,)


def _small(item: Upload) -> bool:
    """Files that SHA256SUMS does not name: the signature."""
    return "/" not in item.path and item.path.startswith("model.sig")


def _open(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise InputError(f"--to {url}: {error}") from None
    return filesystem, root
