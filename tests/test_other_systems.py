"""What Linux has and macOS or Windows has not is never called without another way.

Neither system is here: its name is given to Python, and what it lacks is taken away. mypy reads the
code as on both (`make lint`). What that leaves out is said in docs/architecture.md.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import make_checkpoint

ROOT = Path(__file__).parent.parent
POSIX_ONLY = ("geteuid", "getuid", "getgid", "fork", "killpg", "sched_getaffinity")
LINUX_ONLY = ("sched_getaffinity", "memfd_create", "posix_fallocate", "sendfile", "setresuid")

# Third-party packages are loaded first, as the system that they are made for.
SYSTEM = """
import ctypes, os, pathlib, sys
from edgeproof.cli import commands, main
for entry in commands().values():
    entry.load()
import filelock, export.checkpoint, export.formats, export.gguf, export.job, export.mlc, export.onnx
import export.release.dist, export.sources, resource, runtimes.llamacpp, runtimes.onnxruntime

def refused(*arguments, **options):
    raise AssertionError(f"not on {system}: {arguments}")

system, missing = sys.argv[1], sys.argv[2].split(",")
load = ctypes.CDLL
ctypes.CDLL = lambda name, *rest: load(name, *rest) if name else refused("the C library")
for name in missing:
    if hasattr(os, name):
        delattr(os, name)
if system == "win32":
    resource.getrusage = refused
exists = pathlib.Path.exists
pathlib.Path.exists = lambda path: not str(path).startswith("/proc") and exists(path)
sys.platform = system
for arguments in sys.argv[3:]:
    main(arguments.split("|"), standalone_mode=False)
"""


@pytest.fixture(params=["darwin", "win32"])
def system(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def on(system: str, *commands: tuple[object, ...]) -> str:
    missing = ",".join(POSIX_ONLY if system == "win32" else LINUX_ONLY)
    joined = ["|".join(map(str, command)) for command in commands]
    result = subprocess.run(
        [sys.executable, "-c", SYSTEM, system, missing, *joined],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_exports_are_written_replaced_and_listed(system: str, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", shards=2)
    out = tmp_path / "out"
    dtypes = {"gguf": "q8_0,f16", "onnx": "q4", "mlc": "q4f16_1"}
    again = [
        (form, "--model", checkpoint, "--dtype", dtype, "--out", out, *more)
        for form, dtype in dtypes.items()
        for more in ((), ("--force",))
    ]
    on(system, *again, ("status", out))
    there = {path.parent.name for path in out.rglob("edgeproof.json")}
    assert len(there) == 4
    assert not list(out.rglob(".edgeproof-tmp-*"))


def test_a_runtimes_memory_is_told_or_left_out(system: str, tmp_path: Path) -> None:
    checkpoint, out = make_checkpoint(tmp_path / "checkpoint"), tmp_path / "out"
    export = ("onnx", "--model", checkpoint, "--dtype", "fp32", "--out", out)
    printed = on(system, export, ("footprint", out / "checkpoint" / "onnx" / "fp32"))
    assert ('"peak_mb": null' in printed) == (system == "win32")
