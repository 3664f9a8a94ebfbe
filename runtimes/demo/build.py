"""Write the page, its engines and chosen artifacts as a folder that any static host can serve.

Invariant: the page learns from site.json which files a model has, and what its manifest hashes to;
the manifest has the files' hashes. The page uses no byte that does not agree.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from edgeproof.artifact import Artifact, open_artifact
from edgeproof.artifact.manifest import MANIFEST
from edgeproof.display import number
from edgeproof.errors import InputError
from edgeproof.files.atomic import atomic_folder
from edgeproof.files.hashing import file_sha256
from edgeproof.files.lock import exclusive
from edgeproof.verdicts import REPORT, Compared, read_report
from runtimes.browser.packages import NOTICE, web_packages
from runtimes.formats import Engine, reader_of

SITE = "site.json"
SUFFIX = 12  # characters of a digest in a folder's name


@dataclass(frozen=True)
class ShownModel:
    """What the page knows of an artifact before it is loaded; `manifest` is edgeproof.json's.

    `verdict` is None where the artifact, in these very bytes, has not been compared; `found` says
    in words what that comparison measured, and `ships_for` names the targets that its report
    recommends it for. `engine` is the script that runs it.
    """

    id: str
    name: str
    format: str
    dtype: str
    folder: str
    files: list[str]
    bytes: int
    bits: float
    verdict: str | None
    reasons: list[str]
    found: list[str]
    ships_for: list[str]
    manifest: dict[str, Any]
    engine: str


def build(target: Path, paths: Sequence[Path], say: Callable[[str], None]) -> list[ShownModel]:
    """Write the folder `target` anew, with the artifacts at `paths`, in this order.

    Those that their report recommends for a target come first.

    Raises:
        InputError: no artifacts, damaged ones, one that no browser engine runs, npm's packages
            cannot be had, or `target` is a folder of something else.
    """
    if not paths:
        raise InputError("no artifacts to show: give their folders, or run `python -m export`")
    _refuse_other(target)
    found = [open_artifact(path) for path in paths]
    shown = sorted(((item, describe(item)) for item in found), key=lambda one: not one[1].ships_for)
    artifacts, models = [item for item, _ in shown], [model for _, model in shown]
    for artifact in artifacts:
        artifact.check()
    packages = web_packages(say)
    vendor = f"vendor-{packages.name[:SUFFIX]}"
    with exclusive(target), atomic_folder(target) as folder:
        _refuse_other(target)  # another run may have been at it
        with as_file(files("runtimes.demo").joinpath("page")) as page:
            shutil.copytree(page, folder, dirs_exist_ok=True)
        (folder / vendor).mkdir()
        engines = list(map(engine_of, artifacts))
        for name in sorted({name for engine in engines for name in engine.scripts}):
            shutil.copyfile(packages / name, folder / vendor / name)
        modules = _add_modules(folder, engines)
        shutil.copyfile(packages / NOTICE, folder / NOTICE)
        for artifact, model in zip(artifacts, models, strict=True):
            digests = {item.path: item.sha256 for item in artifact.manifest.outputs}
            for name in model.files:
                _copy(artifact.path / name, folder / model.folder / name, digests[name])
            _copy(artifact.path / MANIFEST, folder / model.folder / MANIFEST, artifact.sha256)
        site = {"vendor": vendor, "engines": modules, "models": [asdict(model) for model in models]}
        (folder / SITE).write_text(json.dumps(site, indent=1) + "\n", "utf-8")
    return models


def describe(artifact: Artifact) -> ShownModel:
    """What the page shows of an artifact.

    Raises:
        InputError: no engine runs it, or a report beside it cannot be read.
    """
    manifest = artifact.manifest
    form, dtype = manifest.variant.format, manifest.variant.name
    sizes = {item.path: item.bytes for item in manifest.outputs}
    engine = engine_of(artifact)
    lacking = engine.lacks(sizes)
    if lacking:
        raise InputError(f"{artifact.path}: {lacking}")
    chosen = engine.files(sizes)
    digest = artifact.sha256
    report = artifact.path.resolve().parents[1] / REPORT
    whole = read_report(report) if report.is_file() else None
    compared = whole.of(digest) if whole else None
    targets = whole.recommendations if whole and compared else ()
    return ShownModel(
        id=f"{manifest.model.name}/{form}/{dtype}",
        name=manifest.model.name,
        format=form,
        dtype=dtype,
        # The name changes with the content, so that a host or a browser may keep it for ever.
        folder=f"models/{form}-{dtype}-{digest[:SUFFIX]}",
        files=chosen,
        bytes=sum(sizes[name] for name in chosen),
        bits=manifest.effective_bpw,
        verdict=compared.verdict.value if compared else None,
        reasons=list(compared.reasons) if compared else [],
        found=list(_found(compared)) if compared else [],
        ships_for=[item.target for item in targets if compared and item.export == compared.name],
        manifest={"bytes": (artifact.path / MANIFEST).stat().st_size, "sha256": digest},
        engine=engine.modules[0],
    )


def _found(compared: Compared) -> Iterator[str]:
    """KL, clear top-1 and acceptance, so far as they are known; and whether it was recovered."""
    values = {name: metric.value for name, metric in compared.metrics.items()}
    kl, clear, accepted = (values.get(name) for name in ("mean_kl", "clear_top1", "acceptance"))
    if compared.recovered is not None:
        yield f"recovered with {compared.recovered:,} tokens of calibration text"
    if kl is not None:
        yield f"mean KL {number(kl)}"
    if clear is not None:
        yield f"clear top-1 {clear:.1%}"
    if accepted is not None:
        yield f"acceptance {accepted:.1%}"


def _refuse_other(target: Path) -> None:
    if target.exists() and not (target / SITE).is_file() and any(target.iterdir()):
        raise InputError(f"{target}: not empty and not a demo; choose another folder")


def _copy(source: Path, place: Path, sha256: str) -> None:
    """Copy bytes of that hash: what is shown beside them was found of no others."""
    place.parent.mkdir(parents=True, exist_ok=True)
    # Not a hard link: onnx refuses to read weights that have two names.
    shutil.copyfile(source, place)
    if file_sha256(place) != sha256:
        raise InputError(f"{source}: changed while it was copied; export it again")


def engine_of(artifact: Artifact) -> Engine:
    """What runs an artifact in the page.

    Raises:
        InputError: nothing does.
    """
    engine = reader_of(artifact).engine
    if engine is None:
        form = artifact.manifest.variant.format
        raise InputError(f"{artifact.path}: no browser engine runs the format {form}")
    return engine


def _add_modules(folder: Path, engines: Sequence[Engine]) -> list[str]:
    """Put the scripts that packages bring beside the page's own; the names of all that are used.

    Raises:
        InputError: one has a name that is taken, or a script is nowhere.
    """
    brought = {path for engine in engines for path in engine.brought}
    for path in sorted(brought):
        if (folder / path.name).exists():
            raise InputError(f"{path}: the demo has another file of that name")
        try:
            shutil.copyfile(path, folder / path.name)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    names = sorted({name for engine in engines for name in engine.modules})
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"the demo has no script {name}, which an engine names")
    return names
