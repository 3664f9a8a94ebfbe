"""What a user meets: exit codes, one-line errors, nothing half-written, the same bytes again."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeproof.files.atomic import TEMPORARY
from tests.tiny import make_checkpoint, write_weights

ROOT = Path(__file__).parent.parent
FORMATS = {"onnx": "fp16", "gguf": "f16", "mlc": "q0f16"}


def run(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def export(
    form: str, model: Path, out: Path, **options: object
) -> subprocess.CompletedProcess[str]:
    return run(
        f"export.{form}", "--model", model, "--dtype", FORMATS[form], "--out", out, **options
    )


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def set_tensor(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors[name] = change(tensors[name].copy())
        write_weights(folder, tensors)

    return apply


def with_nan(array: np.ndarray) -> np.ndarray:
    array.flat[-1] = np.nan
    return array


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size // 2)


def unknown_architecture(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "mamba"}))


def pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


LAST = "model.norm.weight"
DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated file": (truncated, "truncated"),
    "NaN in the last tensor": (set_tensor(LAST, with_nan), f"tensor {LAST} has a NaN"),
    "too large for fp16": (set_tensor(LAST, lambda a: a * 1e6), LAST),
    "wrong shape": (set_tensor(LAST, lambda a: a[:-1]), "has shape"),
    "unknown architecture": (unknown_architecture, "unknown architecture"),
    "pickle only": (pickle_only, "pickled weights are never loaded"),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_bad_input_is_one_line_exit_2_and_nothing_written(
    checkpoint_folder: Path, tmp_path: Path, damage: str, form: str
) -> None:
    apply, message = DAMAGE[damage]
    if damage == "too large for fp16" and form == "gguf":
        message = ""  # GGUF keeps norms in float32, so this one is exported
    apply(checkpoint_folder)
    result = export(form, checkpoint_folder, tmp_path / "out")
    if not message:
        assert result.returncode == 0
        return
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr
    assert digests(tmp_path / "out") == {}


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "c", shards=2)
    (model / "model-00001-of-00002.safetensors").unlink()
    result = export("gguf", model, tmp_path / "out")
    assert result.returncode == 2
    assert "model-00001-of-00002.safetensors" in result.stderr


@pytest.mark.parametrize("form", FORMATS)
def test_an_unknown_dtype_names_the_known_ones(
    checkpoint_folder: Path, tmp_path: Path, form: str
) -> None:
    result = run(f"export.{form}", "-m", checkpoint_folder, "-d", "q9", "-o", tmp_path / "out")
    assert result.returncode == 2
    assert FORMATS[form] in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_size_limit_stands_for_a_full_disk(
    checkpoint_folder: Path, tmp_path: Path, form: str
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    result = export(form, checkpoint_folder, tmp_path / "out", preexec_fn=limit)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("form", FORMATS)
def test_a_second_run_reuses_and_says_so_and_force_gives_the_same_bytes(
    checkpoint_folder: Path, tmp_path: Path, form: str
) -> None:
    first = export(form, checkpoint_folder, tmp_path / "out")
    assert first.returncode == 0, first.stderr
    before = digests(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    second = export(form, checkpoint_folder, tmp_path / "out")
    assert "unchanged, reused" in second.stdout
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    forced = run(
        f"export.{form}", "-m", checkpoint_folder, "-d", FORMATS[form], "-o", tmp_path / "out",
        "--force",
    )  # fmt: skip
    assert "reused" not in forced.stdout
    assert digests(tmp_path / "out") == before


@pytest.mark.parametrize("form", FORMATS)
def test_the_bytes_do_not_depend_on_the_folders_name(tmp_path: Path, form: str) -> None:
    results = []
    for name in ("one", "another name"):
        model = make_checkpoint(tmp_path / name)
        assert export(form, model, tmp_path / f"out of {name}").returncode == 0
        results.append(digests(tmp_path / f"out of {name}" / name))
    assert results[0] == results[1]


# The exporter's own command, which dies with so many bytes of the artifact on disk.
DYING = """
import os, signal, sys
from importlib import import_module
from edgeproof.artifact import HashedFile
left, write = int(sys.argv.pop(1)), HashedFile.write
def write_and_die(file, data):
    global left
    data = memoryview(data).cast("B")
    write(file, data[:left])
    left -= len(data)
    if left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
HashedFile.write = write_and_die
import_module(sys.argv.pop(1)).main()
"""


def kill_after(written: int, form: str, model: Path, out: Path) -> None:
    """Export anew; SIGKILL ends it with so many bytes written, which are left unfinished."""
    arguments = [str(written), f"export.{form}.__main__", "-m", model, "-d", FORMATS[form]]
    command = [sys.executable, "-c", DYING, *arguments, "-o", out, "--force"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    unfinished = digests(out).keys() - finished(out).keys()
    assert sum((out / name).stat().st_size for name in unfinished) == written


def finished(out: Path) -> dict[str, str]:
    return {name: digest for name, digest in digests(out).items() if TEMPORARY not in name}


@pytest.mark.parametrize("form", FORMATS)
def test_kill_9_at_any_byte_then_a_rerun_gives_the_undisturbed_bytes(
    tmp_path: Path, form: str
) -> None:
    model = make_checkpoint(tmp_path / "c")
    calm, out = tmp_path / "calm", tmp_path / "killed"
    assert export(form, model, calm).returncode == 0
    expected = digests(calm)
    total = sum((calm / name).stat().st_size for name in expected)
    # In the first file, among the weights, and with all of it there but not in its place.
    for written in (1, total // 2, total):
        kill_after(written, form, model, out)
        assert finished(out) == {}
    assert export(form, model, out).returncode == 0
    assert digests(out) == expected
    kill_after(total // 2, form, model, out)
    assert finished(out) == expected


def test_a_dry_run_tells_the_size_and_writes_nothing(
    checkpoint_folder: Path, tmp_path: Path
) -> None:
    arguments = ("export", "--model", checkpoint_folder, "--out", tmp_path / "out")
    dry = run(*arguments, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert not (tmp_path / "out").exists()
    real = run(*arguments, "--no-verify")
    assert real.returncode == 0, real.stderr
    assert dry.stdout.replace("  (dry run, not written)", "") == real.stdout


@pytest.mark.parametrize("module", ["export", "export.onnx", "export.gguf", "export.mlc"])
def test_help_shows_an_example(module: str) -> None:
    result = run(module, "--help")
    assert result.returncode == 0
    assert f"python -m {module}" in result.stdout


def test_exporters_import_neither_torch_nor_transformers(
    checkpoint_folder: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from export.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'transformers', 'optimum'} & set(sys.modules)"
    )
    arguments = ["--model", checkpoint_folder, "--out", tmp_path / "out"]
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, check=True)
