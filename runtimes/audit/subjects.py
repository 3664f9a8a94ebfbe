"""Which models there are in files and folders that a user names, and what is in each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeproof.display import printable
from edgeproof.errors import DamagedExportError, InputError
from runtimes.audit import gguf, mlc, mlx, onnx
from runtimes.audit.inspection import Inspection, NoModelError, Origin

MAGIC = b"GGUF"
READ = 512
SHOWN = 200  # characters
LFS = b"version https://git-lfs"
MARKUP = (b"<!doctype", b"<html", b"<?xml")
KNOWN = (
    "a .gguf file, a folder of ONNX graphs, an MLC folder with mlc-chat-config.json, or an MLX"
    " folder with model.safetensors"
)


@dataclass(frozen=True)
class Refused:
    """A file that cannot be audited, why, in a line, and where on the hub it is from."""

    path: Path
    reason: str
    origin: Origin | None = None


@dataclass(frozen=True)
class Found:
    """What is in each model, and the files that are none or are damaged.

    `passed_over` is what a folder has beside its models, such as projectors of images.
    """

    inspected: tuple[Inspection, ...]
    refused: tuple[Refused, ...]
    passed_over: tuple[Refused, ...] = ()


def subjects(paths: Sequence[Path], origins: Sequence[Origin] = ()) -> list[Inspection]:
    """What is in each model that the paths name; of a folder, each model in it.

    `origins` are of those that were fetched from the hub.

    Raises:
        InputError: as `found_in`; and where any of the files is damaged.
    """
    found = found_in(paths, origins)
    for item in found.refused:
        raise InputError(item.reason)
    return [*found.inspected]


def found_in(paths: Sequence[Path], origins: Sequence[Origin] = ()) -> Found:
    """The same, with those files apart that are cut off, damaged, or no model at all.

    Raises:
        InputError: a path names nothing, a folder holds nothing that is known, or none of the files
            can be audited.
    """
    found: dict[Path, Inspection] = {}
    refused: dict[Path, Refused] = {}
    passed_over: dict[Path, Refused] = {}
    for path in paths:
        origin = next((item for item in origins if item.has(path)), None)
        for model in _models(path):
            try:
                inspection = _inspected(model, origin)
                found.setdefault(inspection.subject.resolve(), inspection)
            except InputError as error:
                reason = printable(str(error))
                beside = isinstance(error, NoModelError) and path.is_dir()
                kind = passed_over if beside else refused
                kind.setdefault(model.resolve(), Refused(model, reason, origin))
    if not found:
        first, *others = (*refused.values(), *passed_over.values())
        more = f" (and {len(others)} more cannot be audited)" if others else ""
        raise InputError(f"{first.reason}{more}")
    named = _told_apart(list(found.values()))
    return Found(tuple(named), tuple(refused.values()), tuple(passed_over.values()))


def _inspected(path: Path, origin: Origin | None) -> Inspection:
    """What is in a model; whatever its content makes a reader raise is that file's damage."""
    try:
        called = _called(path, origin)
        item = _folder(path, called) if path.is_dir() else _file(path, origin)
        return replace(item, name=printable(item.name), origin=origin)
    except DamagedExportError as error:
        raise InputError(error.of_others) from None
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  a hostile file may raise anything
        what = f"{type(error).__name__}: {error}".partition("\n")[0][:SHOWN]
        raise InputError(f"{path}: damaged, it cannot be inspected ({what})") from None


def _models(path: Path) -> Iterator[Path]:
    """The file; of a folder every model in it, of every format: MLC's and MLX's is the folder.

    These two may be named by their settings too, as on the hub.
    """
    if path.is_file():
        yield path.parent if _stands_for_its_folder(path) else gguf.first(path)
        return
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    files = (gguf.first(item) for item in sorted(path.glob(f"*{gguf.SUFFIX}")))
    graphs = sorted((*path.glob(f"{onnx.FOLDER}/*{onnx.SUFFIX}"), *path.glob(f"*{onnx.SUFFIX}")))
    whole = [path] if (path / mlc.CONFIG).is_file() or mlx.is_folder(path) else []
    models = [*dict.fromkeys(files), *graphs, *whole]
    if not models:
        raise InputError(f"{path}: holds nothing that can be audited; known: {KNOWN}")
    yield from models


def _stands_for_its_folder(path: Path) -> bool:
    if path.name == mlc.CONFIG:
        return True
    # Without its weights' headers it is any checkpoint's.
    return path.name == mlx.CONFIG and mlx.is_folder(path.parent)


def _called(folder: Path, origin: Origin | None) -> str:
    """What people call a folder: on the hub by the repository, whose commit no one knows."""
    if origin is not None and folder == origin.folder:
        return origin.repo.rpartition("/")[2]
    return folder.resolve().name


def _folder(path: Path, called: str) -> Inspection:
    if (path / mlc.CONFIG).is_file():
        return mlc.inspect(path, called)
    return replace(mlx.inspect(path), name=called)


def _file(path: Path, origin: Origin | None) -> Inspection:
    begin = _begin(path)
    if begin.startswith(MAGIC):
        return gguf.inspect(path)
    if path.suffix == onnx.SUFFIX and not begin.startswith(LFS):
        # Optimum's own folder may be called so too.
        inner = path.parent.name == onnx.FOLDER and not (path.parent / onnx.CONFIG).is_file()
        folder = path.parent.parent if inner else path.parent
        return onnx.inspect(folder, path, _called(folder, origin))
    raise InputError(f"{path}: {_instead(path, begin)}")


def _begin(path: Path) -> bytes:
    if path.exists() and not path.is_file():  # of a pipe nobody may ever write the end
        raise InputError(f"{path}: cannot be read (no regular file)")
    try:
        with path.open("rb") as file:
            return file.read(READ)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _instead(path: Path, begin: bytes) -> str:
    """What is there in place of a model, in words."""
    if not begin:
        return "empty: the download did not begin"
    if begin.startswith(LFS):
        return "a Git LFS pointer, not the file: git lfs pull, or download it"
    if begin.lstrip().lower().startswith(MARKUP):
        return "a web page that was saved in place of the file: download it again"
    if path.suffix == gguf.SUFFIX:
        return f"no GGUF file, it begins with {begin[:4]!r}: download it again"
    return f"nothing that can be audited; known: {KNOWN}"


def _told_apart(found: Sequence[Inspection]) -> list[Inspection]:
    """With names that no two share: else with as much of their paths as tells them apart."""
    names = [item.name for item in found]
    return [
        item
        if names.count(item.name) == 1
        else replace(item, name=_longer(item, [other for other in found if other is not item]))
        for item in found
    ]


def _longer(item: Inspection, others: Sequence[Inspection]) -> str:
    """With the name of the folder that its settings are in, and more of its path where needed."""
    parts = item.place
    paths = [other.place for other in others]
    least = max(2, 1 + len(item.subject.relative_to(item.folder).parts))
    enough = (n for n in range(least, len(parts)) if all(parts[-n:] != path[-n:] for path in paths))
    return printable("/".join(parts[-next(enough, len(parts)) :]))
