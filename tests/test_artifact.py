"""An artifact is there whole or not at all; it is reused exactly while nothing changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from edgeproof.artifact import (
    MANIFEST,
    ArtifactWriter,
    ModelIdentity,
    Precision,
    Recipe,
    Variant,
    open_artifact,
    reusable,
)
from edgeproof.errors import InputError
from edgeproof.files.atomic import TEMPORARY, atomic_folder, write_atomic
from edgeproof.files.hashing import OutputFile, file_sha256, input_records
from edgeproof.files.lock import exclusive
from tests.tiny import make_checkpoint

MODEL = ModelIdentity("tiny", None, None, 1000, (OutputFile("model.safetensors", 4, "00" * 32),))


@dataclass(frozen=True)
class Toy(Recipe):
    """The least recipe that there is."""

    linear: str


VARIANT = Variant("gguf", "f16", Precision.FP16, Toy("F16"))
TOOLS = {"edgeproof": "test"}


def build(target: Path, data: bytes = b"weights") -> None:
    with ArtifactWriter.create(target, MODEL, VARIANT, TOOLS) as writer:
        writer.write("sub/model.bin", data)
        writer.stats.add("F16", 1000, 2000)


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if TEMPORARY in path.name]


def test_a_finished_artifact_describes_its_files(tmp_path: Path) -> None:
    build(tmp_path / "a")
    artifact = open_artifact(tmp_path / "a")
    artifact.check()
    assert artifact.manifest.outputs == (
        OutputFile("sub/model.bin", 7, file_sha256(tmp_path / "a/sub/model.bin")),
    )
    assert artifact.manifest.effective_bpw == 16.0
    assert artifact.file(".bin") == tmp_path / "a/sub/model.bin"


def test_the_same_input_gives_the_same_bytes_in_any_folder(tmp_path: Path) -> None:
    build(tmp_path / "a")
    build(tmp_path / "elsewhere" / "b")
    assert (tmp_path / "a" / MANIFEST).read_bytes() == (
        tmp_path / "elsewhere/b" / MANIFEST
    ).read_bytes()


def test_a_failed_write_leaves_the_old_artifact_and_no_rubbish(tmp_path: Path) -> None:
    build(tmp_path / "a", b"old")

    def fail() -> None:
        with ArtifactWriter.create(tmp_path / "a", MODEL, VARIANT, TOOLS) as writer:
            writer.write("sub/model.bin", b"half")
            raise InputError("stop")

    with pytest.raises(InputError):
        fail()
    assert (tmp_path / "a/sub/model.bin").read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_a_rewrite_replaces_the_whole_folder(tmp_path: Path) -> None:
    build(tmp_path / "a", b"old")
    (tmp_path / "a/stray.txt").write_text("not ours")
    build(tmp_path / "a", b"new")
    assert (tmp_path / "a/sub/model.bin").read_bytes() == b"new"
    assert not (tmp_path / "a/stray.txt").exists()
    assert leftovers(tmp_path) == []


def test_an_intact_artifact_of_the_same_recipe_is_reused(tmp_path: Path) -> None:
    build(tmp_path / "a")
    assert reusable(tmp_path / "a", MODEL, VARIANT, TOOLS) is not None


@pytest.mark.parametrize(
    ("model", "variant", "tools"),
    [
        (ModelIdentity("tiny", None, "v2", 1000, MODEL.inputs), VARIANT, TOOLS),
        (MODEL, replace(VARIANT, recipe=Toy("BF16")), TOOLS),
        (MODEL, VARIANT, {"edgeproof": "newer"}),
    ],
)
def test_another_recipe_is_not_reused(
    tmp_path: Path, model: ModelIdentity, variant: Variant, tools: dict[str, str]
) -> None:
    build(tmp_path / "a")
    assert reusable(tmp_path / "a", model, variant, tools) is None


@pytest.mark.parametrize("damage", [b"Weights", b"weight", b"weights and more", None])
def test_changed_bytes_are_noticed(tmp_path: Path, damage: bytes | None) -> None:
    build(tmp_path / "a")
    path = tmp_path / "a/sub/model.bin"
    path.unlink() if damage is None else path.write_bytes(damage)
    assert reusable(tmp_path / "a", MODEL, VARIANT, TOOLS) is None
    with pytest.raises(InputError, match=r"model\.bin"):
        open_artifact(tmp_path / "a").check()


@pytest.mark.parametrize("path", ["../model.bin", "/etc/passwd", "a/../../b", "..\\b"])
def test_a_manifest_cannot_name_a_path_outside_its_folder(tmp_path: Path, path: str) -> None:
    build(tmp_path / "a")
    manifest = tmp_path / "a" / MANIFEST
    raw = json.loads(manifest.read_text())
    raw["outputs"][0]["path"] = path
    manifest.write_text(json.dumps(raw))
    with pytest.raises(InputError, match="leaves the folder"):
        open_artifact(tmp_path / "a")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 3, "model": 3}'])
def test_a_malformed_manifest_is_one_clear_error(tmp_path: Path, text: str) -> None:
    build(tmp_path / "a")
    (tmp_path / "a" / MANIFEST).write_text(text)
    with pytest.raises(InputError, match=MANIFEST):
        open_artifact(tmp_path / "a")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("weights",), {}),
        (("weights", "effective_bpw"), "many"),
        (("weights", "fallbacks"), [{"asked": "Q4_K"}]),
        (("weights", "types"), {"F16": 3}),
        (("outputs", 0, "bytes"), "12"),
        (("outputs", 0, "sha256"), None),
        (("model", "inputs"), [[]]),
    ],
)
def test_a_manifest_has_all_that_is_read_of_it(
    tmp_path: Path, path: tuple[Any, ...], value: object
) -> None:
    build(tmp_path / "a")
    manifest = tmp_path / "a" / MANIFEST
    raw = json.loads(manifest.read_text())
    place = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    manifest.write_text(json.dumps(raw))
    with pytest.raises(InputError, match="not an edgeproof manifest"):
        open_artifact(tmp_path / "a")


KILLED_WRITER = """
import sys
from pathlib import Path
from tests.test_artifact import MODEL, TOOLS, VARIANT
from edgeproof.artifact import (ArtifactWriter)
with ArtifactWriter.create(Path(sys.argv[1]), MODEL, VARIANT, TOOLS) as writer:
    with writer.open("sub/model.bin") as file:
        file.write(b"half of it")
        print("writing", flush=True)
        import time
        time.sleep(60)
"""


def test_kill_9_leaves_the_old_artifact_and_the_next_run_cleans_up(tmp_path: Path) -> None:
    target = tmp_path / "a"
    build(target, b"old")
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED_WRITER, str(target)], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert (target / "sub/model.bin").read_bytes() == b"old"
    assert leftovers(tmp_path)
    build(target, b"new")
    assert (target / "sub/model.bin").read_bytes() == b"new"
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "edgeproof.artifact.store.Path.open", lambda *_, **__: FileIO("/dev/full", "wb")
    )
    with pytest.raises(InputError, match="the disk is full"):
        build(tmp_path / "a", bytes(1 << 20))
    assert not (tmp_path / "a").exists()
    assert leftovers(tmp_path) == []


def test_digests_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "big.bin"
    path.write_bytes(b"one")
    first = input_records([path], tmp_path / "digests")
    assert first == input_records([path], tmp_path / "digests")
    time.sleep(0.01)
    path.write_bytes(b"two")
    assert input_records([path], tmp_path / "digests")[0].sha256 == file_sha256(path)


def test_what_fails_leaves_no_folder_that_was_made_for_it(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    target = tmp_path / "out/model/mlx/f32"
    with pytest.raises(InputError, match="refused"), atomic_folder(target):
        assert [*target.parent.iterdir()]
        raise InputError("refused")
    assert [*tmp_path.rglob("*")] == [tmp_path / "out"]
    with pytest.raises(InputError, match="refused"), atomic_folder(target):
        (tmp_path / "out/model/another run's").touch()
        raise InputError("refused")
    assert [*(tmp_path / "out/model").iterdir()] == [tmp_path / "out/model/another run's"]


def test_write_atomic_replaces_and_is_world_readable(tmp_path: Path) -> None:
    write_atomic(tmp_path / "sub/x.json", b"1")
    write_atomic(tmp_path / "sub/x.json", b"2")
    assert (tmp_path / "sub/x.json").read_bytes() == b"2"
    assert (tmp_path / "sub/x.json").stat().st_mode & 0o777 == 0o644


def test_another_artifact_with_a_longer_name_may_be_written_at_the_same_time(
    tmp_path: Path,
) -> None:
    with ArtifactWriter.create(tmp_path / "q4_0-pure", MODEL, VARIANT, TOOLS) as writer:
        writer.write("model.bin", b"pure")
        build(tmp_path / "q4_0")
    open_artifact(tmp_path / "q4_0-pure").check()


def test_a_second_run_waits_for_the_first_one_and_reuses_its_artifact(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "tiny")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "export.gguf", "-m", str(tmp_path / "tiny"), "-d", "f16"]
    with exclusive(out / "tiny" / "gguf" / "f16"):
        runs = [
            subprocess.Popen([*command, "-o", str(out)], stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        for run in runs:
            assert run.stderr is not None
            assert "another run is writing it; waiting" in run.stderr.readline()
    for run in runs:
        _, errors = run.communicate()
        assert run.returncode == 0, errors
    artifact = open_artifact(out / "tiny" / "gguf" / "f16")
    artifact.check()
    assert leftovers(out) == []
