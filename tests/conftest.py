"""Shared fixtures: every test has its own cache, so that no test sees another's or the user's."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeproof.errors import InputError
from runtimes.adapter import SPIN_COUNT
from tests import required
from tests.caches import COMPILED, new_cache
from tests.required import missing
from tests.tiny import make_checkpoint

pytest_runtest_makereport = required.pytest_runtest_makereport

# Commands run in the tests' own process, where they may be changed; those of watching say so.
os.environ["EDGEPROOF_WATCH"] = "0"
# A terminal's width, which pytest-xdist hands to its workers, cuts tables.
os.environ.pop("COLUMNS", None)
# Before any test module imports PyTorch or TVM, whose threads read these once. TVM's own count is
# a tenth faster on an idle machine, and many times slower where two processes share the cores.
os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "100")

# A shell's background job ignores Ctrl-C, what nohup begins a hang-up, and so would the programs
# that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    os.environ[COMPILED] = str(shared / "compiled")


@pytest.fixture(autouse=True)
def _own_cache(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[None]:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    if "slow" in request.keywords:
        yield
        return
    folder = tmp_path_factory.mktemp("test")
    monkeypatch.setenv("EDGEPROOF_CACHE", new_cache(folder))
    yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def webgpu() -> None:
    """A WebGPU device, or the test is skipped with what to do; `make test` prepares one.

    Its driver and compiled shaders are in the user's cache: compiling them takes a minute.
    """
    from runtimes.formats.onnx import WEBGPU

    try:
        WEBGPU.load()
        from runtimes.webgpu.device import open_device

        open_device()
    except InputError as error:
        missing("webgpu", str(error))


@pytest.fixture(scope="session")
def webgpu_command() -> str:
    """What `python -m runtimes.webgpu` says: a WebGPU device that leaves no trace in this process.

    For tests that start programs.
    """
    command = [sys.executable, "-m", "runtimes.webgpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        missing("webgpu", done.stderr.strip().rpartition("\n")[2])
    return done.stdout


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Chromium's executable, with Playwright to drive it."""
    from runtimes.browser.chromium import find_chromium

    if importlib.util.find_spec("playwright") is None:
        missing("browser", 'pip install "edgeproof[browser]"')
    try:
        return find_chromium()
    except InputError as error:
        missing("browser", str(error))


@pytest.fixture(scope="session")
def web_packages() -> Path:
    """npm's packages in the user's cache: no test fetches any."""
    from runtimes.browser.packages import packages_folder

    folder = packages_folder()
    if not folder.exists():
        missing("browser", "npm's packages are not in the cache; run: python -m runtimes.browser")
    return folder


@pytest.fixture
def checkpoint_folder(tmp_path: Path) -> Path:
    """A fresh tiny checkpoint that a test may damage."""
    return make_checkpoint(tmp_path / "checkpoint")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts and reports of a tiny model, for tests of releases; no test may change them."""
    from tests.releases import make_root

    return make_root(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="session")
def real_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default plan's plain variants of the real bundled model: exported, run and compared once.

    Recovered ones would take minutes more.
    """
    folder = tmp_path_factory.mktemp("real") / "artifacts"
    root = Path(__file__).parent.parent
    subprocess.run(["make", "export-all", f"OUT={folder}", "RECOVER=no"], cwd=root, check=True)
    return folder


@pytest.fixture(scope="session")
def releases(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One release, and another of the same name whose cards, and what follows, are not the same."""
    from tests.publishing import build

    folder = tmp_path_factory.mktemp("releases")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROOF_CACHE", str(folder / "cache"))
        first = build(exported, folder / "first", "first")
        return first, build(exported, folder / "second", "second")
