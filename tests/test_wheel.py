"""`make verify`: the wheel in an environment of its own, with nothing but what it asks for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from edgeproof.cli import commands
from tests.exported import export_tiny
from tests.tiny import make_checkpoint

ROOT = Path(__file__).parent.parent
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("wheel")
    # Not in the checkout: what an earlier build left there would be packed again.
    (work / "setup.cfg").write_text(f"[build]\nbuild_base = {work / 'build'}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIST_EXTRA_CONFIG", str(work / "setup.cfg"))
        built = run(sys.executable, *PIP, "wheel", "--no-deps", "-w", work, ROOT, cwd=work)
    assert built.returncode == 0, built.stderr
    (path,) = work.glob("edgeproof-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The folder of the programs of an environment that has the wheel and no extra."""
    work = wheel.parent
    made = run(sys.executable, "-m", "venv", work / "venv", cwd=work)
    assert made.returncode == 0, made.stderr
    programs = work / "venv" / Path(sys.executable).parent.name
    pinned = ("--constraint", ROOT / "constraints.txt")
    done = run(programs / "python", *PIP, "install", *pinned, wheel, cwd=work)
    assert done.returncode == 0, done.stderr
    return programs


def test_it_takes_three_names_in_site_packages_and_brings_its_data(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.partition("/")[0] for name in names}
    metadata = {name for name in top if name.endswith(".dist-info")}
    assert top - metadata == {"edgeproof", "export", "runtimes"}
    page = {path.name for path in (ROOT / "runtimes/demo/page").iterdir()}
    assert page <= {name.removeprefix("runtimes/demo/page/") for name in names}


def test_it_needs_nothing_that_it_does_not_ask_for(installed: Path, tmp_path: Path) -> None:
    check = run(installed / "python", *PIP, "check", cwd=tmp_path)
    assert check.returncode == 0, check.stdout
    heavy = (
        "import importlib.util as u; print([n for n in ('torch', 'playwright') if u.find_spec(n)])"
    )
    assert run(installed / "python", "-c", heavy, cwd=tmp_path).stdout == "[]\n"


@pytest.mark.parametrize("arguments", [(), *((name,) for name in commands())], ids="".join)
def test_every_command_shows_its_help(
    installed: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    result = run(installed / "edgeproof", *arguments, "--help", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Usage: edgeproof")


@pytest.mark.parametrize(("form", "dtype"), [("gguf", "q8_0"), ("onnx", "q4"), ("mlc", "q4f16_1")])
def test_it_exports_what_the_checkout_does(
    installed: Path, tmp_path: Path, form: str, dtype: str
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    command = ("--model", checkpoint, "--dtype", dtype, "--out", tmp_path / "out")
    result = run(installed / "edgeproof", form, *command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (manifest,) = (tmp_path / "out").rglob("edgeproof.json")
    ours = export_tiny(checkpoint, form, dtype, tmp_path / "ours")
    assert manifest.read_text("utf-8") == ours.manifest.to_json()


def test_what_needs_an_extra_says_which(installed: Path, tmp_path: Path) -> None:
    result = run(installed / "edgeproof", "parity", "--root", "nowhere", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert 'pip install "edgeproof[parity]"' in result.stderr
