"""Publishing: nothing half-done is visible, interruptions are gone on with, only changes travel."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest

from export.release.publish import retries
from tests.consumers.environment import s3_python
from tests.publishing import digests, publish, run

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(retries, "LONGEST_PAUSE", 0.0)


def test_a_folder_gets_the_release_and_then_only_changes(
    releases: tuple[Path, Path], tmp_path: Path
) -> None:
    first, second = releases
    target = tmp_path / "models" / first.name
    output = publish(first, "--to", f"dir:{tmp_path / 'models'}")
    assert output.count("uploaded:") == len(digests(first))
    assert digests(target) == digests(first)
    assert "uploaded:" not in publish(first, "--to", f"dir:{tmp_path / 'models'}")
    plan = publish(second, "--to", f"dir:{tmp_path / 'models'}", "--dry-run")
    assert "README.md" in plan
    assert ".gguf" not in plan
    assert digests(target) == digests(first)
    publish(second, "--to", f"dir:{tmp_path / 'models'}")
    assert digests(target) == digests(second)
    assert [path.name for path in target.parent.iterdir()] == [target.name]


WITHOUT = """
import importlib.metadata, sys
absent = sys.argv[1].split(",")
from_name = importlib.metadata.Distribution.from_name

@classmethod
def found(cls, name):
    if name.replace("-", "_") in absent:
        raise importlib.metadata.PackageNotFoundError(name)
    return from_name(name)

importlib.metadata.Distribution.from_name = found
sys.modules.update(dict.fromkeys(absent))
from export.release.__main__ import main
main(sys.argv[2:])
"""


def test_publishing_needs_nothing_of_what_exporting_and_running_need(
    releases: tuple[Path, Path], tmp_path: Path
) -> None:
    absent = "gguf,llama_cpp,llama_cpp_python,onnx,onnxruntime,scipy,tokenizers,torch,tvm"
    arguments = [absent, "publish", str(releases[0]), "--to", f"dir:{tmp_path}"]
    subprocess.run([sys.executable, "-c", WITHOUT, *arguments], cwd=ROOT, check=True)
    assert digests(tmp_path / releases[0].name) == digests(releases[0])


KILLER = """
import os, random, signal, sys, time
from pathlib import Path
from click.testing import CliRunner
import export.release.publish.destinations, export.release.publish.folder
import export.release.publish.plan, export.release.verify
from export.release.__main__ import main
first, second, base, seed = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
sys.path.insert(0, sys.argv[5])
from tests.test_release_publish import digests
import export.release.__main__ as command
rng = random.Random(seed)
killed = 0
for turn in range(20):
    place = base / str(turn)
    if turn % 2:  # something is there already
        CliRunner().invoke(main, ["publish", str(first), "--to", f"dir:{place}"])
    before = digests(place / first.name)
    # As many files arrive, then a moment later it dies.
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        def tell(text, *rest, **options):
            os.write(writing, b".")
        command.click.echo = tell
        try:
            main(["publish", str(second), "--to", f"dir:{place}"], standalone_mode=False)
        finally:
            os._exit(0)
    os.close(writing)
    for _ in range(rng.randrange(len(digests(second)) if not turn % 2 else 8)):
        if not os.read(reading, 1):
            break
    time.sleep(rng.random() * 0.02)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reading)
    killed += os.WIFSIGNALED(status)
    assert digests(place / first.name) in (before, digests(second)), "half of it is visible"
    done = CliRunner().invoke(main, ["publish", str(second), "--to", f"dir:{place}"])
    assert done.exit_code == 0, done.output
    assert digests(place) == {f"{second.name}/{k}": v for k, v in digests(second).items()}
print(killed)
"""


def test_killed_at_20_random_moments_a_rerun_completes(
    releases: tuple[Path, Path], tmp_path: Path
) -> None:
    script = tmp_path / "killer.py"
    script.write_text(KILLER)
    command = [sys.executable, script, *releases, tmp_path / "places", "5", ROOT]
    done = subprocess.run(
        [str(item) for item in command],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) >= 10  # most of them died before they were done


def test_a_damaged_release_is_not_published(releases: tuple[Path, Path], tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(releases[0], tmp_path / "damaged"))
    with (damaged / "parity.html").open("ab") as file:
        file.write(b"!")
    done = run("publish", damaged, "--to", f"dir:{tmp_path / 'models'}")
    assert done.exit_code == 1
    assert "parity.html: changed" in done.output
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("address", ["nowhere", "dir:", "s4://bucket", "github:me", "hub:a/b"])
def test_addresses_that_mean_nothing_are_bad_input(
    releases: tuple[Path, Path], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    done = run("publish", releases[0], "--to", address)
    assert done.exit_code == 2
    assert len(done.output.strip().splitlines()) == 1


class Store:
    """fsspec's memory store, with operations that fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fs = fsspec.filesystem("memory")
        self.fs.store.clear()
        self.fs.pseudo_dirs[:] = [""]
        self.put: list[str] = []
        self.failures: list[Exception] = []
        self.corrupt = 0
        original = type(self.fs).put_file

        def put_file(fs: Any, source: str, target: str, **options: Any) -> None:
            if self.failures:
                raise self.failures.pop(0)
            self.put.append(target)
            original(fs, source, target, **options)
            if self.corrupt:
                self.corrupt -= 1
                fs.pipe_file(target, b"!" + fs.cat_file(target)[1:])

        monkeypatch.setattr(type(self.fs), "put_file", put_file)

    def digests(self, root: str) -> dict[str, str]:
        return {
            path.removeprefix(f"/{root}/"): hashlib.sha256(self.fs.cat_file(path)).hexdigest()
            for path in self.fs.find(f"/{root}")
        }


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    return Store(monkeypatch)


def test_an_object_store_gets_the_release_and_then_only_changes(
    releases: tuple[Path, Path], store: Store
) -> None:
    first, second = releases
    publish(first, "--to", "memory://bucket/models")
    assert store.digests(f"bucket/models/{first.name}") == digests(first)
    store.put.clear()
    publish(first, "--to", "memory://bucket/models")
    assert store.put == []
    publish(second, "--to", "memory://bucket/models")
    assert store.put
    assert not any(path.endswith(".gguf") for path in store.put)
    assert store.digests("bucket/models") == {
        f"{second.name}/{path}": digest for path, digest in digests(second).items()
    }


@pytest.mark.parametrize("arrived", [0, 1, 7, 20])
def test_an_interrupted_upload_is_invisible_and_gone_on_with(
    releases: tuple[Path, Path], store: Store, arrived: int
) -> None:
    first, _ = releases
    store.failures = []
    count = len(digests(first))

    original = type(store.fs).put_file

    def until_interrupted(fs: Any, source: str, target: str, **options: Any) -> None:
        if len(store.put) == arrived:
            raise KeyboardInterrupt
        original(fs, source, target, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(store.fs), "put_file", until_interrupted)
        assert run("publish", first, "--to", "memory://b").exit_code == 130
    assert store.digests(f"b/{first.name}") == {}
    publish(first, "--to", "memory://b")
    assert len(store.put) == count  # each file travelled once
    assert store.digests(f"b/{first.name}") == digests(first)


def test_failures_and_damage_on_the_way_are_tried_again(
    releases: tuple[Path, Path], store: Store
) -> None:
    first, _ = releases
    store.failures = [OSError("connection reset")] * 3
    store.corrupt = 2
    publish(first, "--to", "memory://b")
    assert (store.failures, store.corrupt) == ([], 0)
    assert store.digests(f"b/{first.name}") == digests(first)


def test_what_is_forbidden_is_not_tried_again(releases: tuple[Path, Path], store: Store) -> None:
    store.failures = [PermissionError("Access Denied"), OSError("asked again")]
    done = run("publish", releases[0], "--to", "memory://b")
    assert done.exit_code == 2
    assert "Access Denied" in done.output


def test_a_store_that_always_fails_is_an_error_that_names_the_file(
    releases: tuple[Path, Path], store: Store
) -> None:
    store.failures = [OSError("no route to host")] * 100
    done = run("publish", releases[0], "--to", "memory://b")
    assert done.exit_code == 2
    assert "no route to host" in done.output.splitlines()[-1]
    assert store.digests(f"b/{releases[0].name}") == {}


@pytest.mark.slow
def test_s3_gets_the_release_through_its_own_protocol(releases: tuple[Path, Path]) -> None:
    """The real client against moto's server: interrupted, gone on with, repeated, changed."""
    script = ROOT / "tests" / "consumers" / "s3_publish.py"
    done = subprocess.run(
        [str(s3_python()), str(script), *map(str, releases)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    interrupted, *complete = (json.loads(line)["bucket"] for line in lines)
    first, second = releases
    hidden = f"llm/.edgeproof-publish-{first.name}/"
    assert interrupted
    assert all(key.startswith(hidden) for key in interrupted)
    for bucket, release in zip(complete, (first, first, second), strict=True):
        assert bucket == {f"llm/{first.name}/{p}": d for p, d in digests(release).items()}
