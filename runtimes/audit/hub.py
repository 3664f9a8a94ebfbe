"""Files of a repository of the hub: which ones an audit needs, and fetching them.

What fetches is a process of the exporters (`export.fetch`), as for `--against`; here is decided
what a model of each format is made of.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgeproof.checkpoints.origin import HUB_ID
from edgeproof.display import printable
from edgeproof.errors import InputError
from edgeproof.processes import run
from runtimes.audit import gguf, mlc, mlx, onnx
from runtimes.audit.inspection import Origin

PREFIX = "hub:"
FORMATS = (gguf, onnx, mlc)  # whose models are told by their files' names
MODULES = (*FORMATS, mlx)
LISTED = 12  # models that an error names
KNOWN = (
    "a .gguf file, an .onnx graph, an mlc-chat-config.json, or MLX's model.safetensors, where"
    " config.json has a quantization or the repository the tag mlx"
)


@dataclass(frozen=True)
class OnHub:
    """A repository, and what of it is named: a file, a folder of models, or nothing, for all."""

    repo: str
    inside: str = ""

    def __str__(self) -> str:
        return f"{self.repo}/{self.inside}" if self.inside else self.repo


def on_hub(text: str) -> OnHub | None:
    """What a user names, if that is not on this disk and may be on the hub.

    Raises:
        InputError: it begins as on the hub, and nothing there can be called so.
    """
    said = text.removeprefix(PREFIX)
    if said == text and (_exists(text) or text.startswith((".", "/", "~"))):
        return None
    owner, _, rest = said.partition("/")
    name, _, inside = rest.rstrip("/").partition("/")
    repo = f"{owner}/{name}"
    # As for `--model`: a file that is missing here is no repository.
    missing = said == text and not inside and name.endswith((gguf.SUFFIX, onnx.SUFFIX))
    if HUB_ID.fullmatch(repo) is None or missing or ".." in inside.split("/"):
        if said == text:
            return None
        raise InputError(f"{text}: not a hub id; org/name or org/name/file after {PREFIX}")
    return OnHub(repo, inside)


def fetched(named: OnHub, revision: str | None) -> tuple[list[Path], Origin]:
    """The models that are named, with all that their loaders need of the repository.

    Raises:
        InputError: nothing there can be audited, several can and none is named, or the hub cannot
            be reached.
    """
    there = _ask(named.repo, revision)
    commit, names = str(there["commit"]), frozenset(there["files"])
    maybe = _mlx(named, commit, names, frozenset(there["tags"]))
    models = _chosen(named, names, maybe)
    wanted = {name for model in models for name in _beside(model, names)}
    folder = _fetch(named.repo, commit, wanted)
    further = {name for model in models for name in _further(model, folder)} & names
    if further - wanted:
        folder = _fetch(named.repo, commit, further - wanted)
    return [folder / model for model in models], Origin(named.repo, commit, folder)


def _exists(text: str) -> bool:
    try:
        return bool(text) and Path(text).exists()
    except (OSError, ValueError):  # what no system could have as a path
        return False


def _mlx(
    named: OnHub, commit: str, names: Collection[str], tags: Collection[str]
) -> frozenset[str]:
    """The config.json of the folder that is named, if MLX's weights lie beside it.

    Weights of transformers have the same names. So that none of these are fetched, the settings or
    the repository have to say it; once they are here, the weights' own header is asked.
    """
    inside = PurePosixPath(named.inside)
    config = (inside if inside.name == mlx.CONFIG else inside / mlx.CONFIG).as_posix()
    if config not in mlx.published(names):
        return frozenset()
    said = mlx.TAG in tags or mlx.is_quantised(_fetch(named.repo, commit, [config]) / config)
    return frozenset([config] if said else [])


def _chosen(named: OnHub, names: Collection[str], maybe: Collection[str]) -> list[str]:
    """The models that a user means, each by the file that its format begins with.

    `maybe` are those that no names tell.
    """
    models = sorted({*maybe, *(name for form in FORMATS for name in form.published(names))})
    if named.inside in maybe:
        return [named.inside]
    if named.inside in names:
        for form in FORMATS:
            if first := form.published([named.inside]):
                return [*first]
        raise InputError(f"{named}: nothing that can be audited; known: {KNOWN}")
    below = [name for name in models if not named.inside or name.startswith(f"{named.inside}/")]
    if not below:
        what = "holds nothing that can be audited" if not named.inside else "is not there"
        has = f"; it has {_list(models)}" if models else f"; known: {KNOWN}"
        raise InputError(f"{named}: {what}{has}")
    if len(below) > 1 and not named.inside:
        raise InputError(
            f"{named}: holds {len(below)} models; name one, or a folder of them, as"
            f" {named}/{printable(below[0])}: {_list(below)}"
        )
    return below


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(map(printable, names[:LISTED]))
    return shown if len(names) <= LISTED else f"{shown} and {len(names) - LISTED} more"


def _beside(model: str, names: Collection[str]) -> set[str]:
    return {name for form in MODULES for name in form.beside(model, names)}


def _further(model: str, folder: Path) -> set[str]:
    """What a model's own bytes name, below its folder."""
    parent = PurePosixPath(model).parent
    found = {name for form in MODULES for name in form.further(folder / model)}
    return {(parent / name).as_posix() for name in found}


def _fetch(repo: str, commit: str, names: Collection[str]) -> Path:
    return Path(_ask(repo, commit, *sorted(names))["folder"])


def _ask(repo: str, revision: str | None, *names: str) -> Any:
    command = [sys.executable, "-m", "export.fetch"]
    command += [f"--revision={revision}"] if revision else []
    done = run([*command, "--", repo, *names], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise InputError(last.removeprefix("error: ") or f"{repo}: cannot be fetched")
    return json.loads(done.stdout)
