"""What awkward places, arguments and signals make of commands: a row for each kind of them.

A row of `ROWS` runs commands; one of `ELSEWHERE` names the tests of a kind that needs more.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgeproof import __version__
from edgeproof.cli import main
from export.plan import load_plan
from runtimes.parity.text_file import read_suite
from tests.small_root import make_small_root

ROOT = Path(__file__).parent.parent
VARIANT = '[[variant]]\nformat = "gguf"\ndtype = "f16"\n'
Row = Callable[[Path, pytest.MonkeyPatch], None]
ROWS: dict[str, Row] = {}
ELSEWHERE = {
    "Ctrl-C, SIGTERM and kill -9 in export, parity, recover and release build": (
        "test_killed.test_what_was_ended_is_completed_by_the_next_run",
        "test_killed.test_at_many_moments",
    ),
    "SIGTERM and SIGHUP, also twice": (
        "test_ending.test_a_signal_removes_what_is_half_written_even_if_it_comes_twice",
    ),
    "Ctrl-C in the first tenth of a second": (
        "test_awkward_places.test_an_interruption_while_modules_are_imported_is_no_traceback",
    ),
    "a cache that is read-only, full, or cannot be made": (
        "test_without_cache.test_commands_work_and_say_it_in_a_line",
        "test_without_cache.test_what_is_in_a_cache_that_is_read_only_is_used",
        "test_without_cache.test_a_disk_that_becomes_full_costs_what_would_be_remembered",
    ),
    "a chat that gets bytes of another encoding, or no stdin": (
        "test_before_work.test_a_chat_takes_no_other_encoding",
        "test_before_work.test_a_chat_without_stdin_ends",
    ),
    "a message longer than the context, piped": (
        "test_chat.test_too_long_a_conversation_is_said_and_the_chat_goes_on",
    ),
    "stdout on a full disk, and a pipe that is closed": (
        "test_ending.test_a_full_disk_under_stdout_is_one_line_and_a_closed_pipe_is_quiet",
        "test_ending.test_every_command_is_quiet_about_a_closed_pipe",
    ),
    "closed stdout and stderr": (
        "test_awkward_places.test_a_stream_that_is_closed_is_no_hindrance",
    ),
    "other locales, dumb and narrow terminals, no HOME": (
        "test_every_command.test_any_arguments_in_any_environment_with_a_damaged_file",
        "test_awkward_places.test_tables_are_as_wide_as_columns_says",
        "test_awkward_places.test_colours_are_only_where_they_are_wanted",
    ),
    "a full disk under --out, and a limit on files' sizes": (
        "test_command_line.test_a_file_size_limit_stands_for_a_full_disk",
        "test_artifact.test_a_full_disk_is_one_clear_error",
    ),
    "unknown dtypes": ("test_command_line.test_an_unknown_dtype_names_the_known_ones",),
    "unknown options": ("test_ending.test_usage_errors_are_one_line",),
    "damaged plans": ("test_plan.test_a_wrong_plan_is_refused_in_one_line",),
    "damaged files of ours": (
        "test_own_files.test_what_is_not_ours_is_damaged_and_named_in_a_line",
        "test_every_command.test_any_damage_is_read_and_nothing_is_changed",
    ),
    "a text of an odd kind": ("test_parity_text.test_text_that_cannot_be_used_is_refused",),
    "Ctrl-C in a chat's answer": ("test_chat.test_ctrl_c_ends_the_answer_and_not_the_chat",),
}


def row(name: str) -> Callable[[Row], Row]:
    """Enter a function into the table."""

    def enter(check: Row) -> Row:
        ROWS[name] = check
        return check

    return enter


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, two artifacts and their records; a file, and a link to nothing."""
    place = tmp_path_factory.mktemp("made")
    make_small_root(place)
    (place / "file").write_text("x")
    (place / "link").symlink_to("gone")
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "place", symlinks=True))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(item) for item in arguments])


def refused(place: Path, *arguments: str | Path, says: str) -> None:
    """A command does nothing: exit code 2, and one line that says so."""
    before = sorted(place.rglob("*"))
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    (line,) = done.output.splitlines()
    assert says in line
    assert sorted(place.rglob("*")) == before


def statuses(root: Path) -> dict[str, dict[str, Any]]:
    """What status tells of artifacts, by their folders' names."""
    done = run("status", root, "--json")
    assert done.exit_code == 0, done.output
    return {Path(item["path"]).name: item for item in json.loads(done.stdout)}


@row("python -m edgeproof is edgeproof")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "edgeproof", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"edgeproof, version {__version__}\n"


@row("a dtype, folder or path that is empty, or that no system can name")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(place)
    gguf = ("gguf", "-m", "gone", "-d")
    refused(place, *gguf, "", says="--dtype names none")
    refused(place, *gguf, ",,", says="--dtype names none")
    refused(place, *gguf, "f16", "-o", "", says="is no path")
    refused(place, *gguf, "f16", "-o", "a\0b", says="is no path")
    refused(place, "mlc", "-d", "q0f16", "--model-lib", "a\0b", says="is no path")


@row("a model, a file of others or a revision that is empty")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(place)
    for line in (
        ("audit", ""),
        ("audit", "", "--inspect"),
        ("audit", "file", "", "--inspect"),
        ("audit", "file", "--against", ""),
        ("audit", "file", "--inspect", "--revision", ""),
        ("audit", "file", "--against", "file", "--against-revision", ""),
        ("gguf", "-d", "f16", "-m", ""),
        ("gguf", "-d", "f16", "-m", "file", "--revision", ""),
        ("gguf", "-d", "f16", "-m", "file", "--adapter", ""),
        ("gguf-adapter", "--adapter", "", "-o", "x.gguf"),
        ("export", "-m", ""),
        ("recover", "-m", "", "--format", "gguf", "--bits", "5", "-o", "out"),
        ("parity", "--original", ""),
        ("chat", ""),
        ("chat", "--compare", "file", ""),
    ):
        refused(place, *line, says="'' names nothing")


@row("a plan whose gates make no sense")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    for text, says in (
        ("[gates.fp16]\nmean_kl = nan", "must be a number, not nan"),
        ("[gates.fp16]\nmean_kl = inf", "must be a number, not inf"),
        ("[gates.8-bit]\nmean_kl = -1", "must not be negative"),
        ("[gates.eight]\nmean_kl = 1", "unknown class"),
        ("[gates.fp16-tvm]\nmean_kl = 1", "unknown class"),
        ("[gates.fp16]\nmean_klx = 1", "unknown metric 'mean_klx'; known: mean_kl"),
    ):
        refused_plan(place, VARIANT + text, says)


@row("a plan with a variant twice")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    text = VARIANT + VARIANT + "allow-degraded = true\n"
    refused_plan(place, text, "gguf f16 is in the plan twice")


@row("a plan that is nested deeply, or has paths that no system can name")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    refused_plan(place, "models = " + "[" * 5000, "not valid TOML")
    refused_plan(place, VARIANT + 'imatrix = "a\\u0000b"', "is no path")


def refused_plan(place: Path, text: str, says: str) -> None:
    (place / "plan.toml").write_text(text)
    asked = ("--plan", place / "plan.toml", "-m", place / "model", "-o", place / "out")
    refused(place, "export", *asked, says=says)


@row("a byte order mark before a plan or a text")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    plan, prompts = place / "plan.toml", place / "p.jsonl"
    plan.write_text("models = ['m']\n" + VARIANT, "utf-8-sig")
    assert load_plan(plan).models[0].id == "m"
    prompts.write_text('{"text": "Hello"}\n', "utf-8-sig")
    assert len(read_suite(prompts).prompts) == 1


@row("a report or a folder that cannot be written, or is of another kind")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    gguf = ("gguf", "-m", "gone", "-d", "f16", "-o")
    refused(place, *gguf, place / "link", says="a link to what")
    refused(place, *gguf, place / "file/x", says="not a folder")
    pair = ("compare", "a", "b", "--json")
    refused(place, *pair, place, says="a folder; name a file")
    refused(place, *pair, place / "file/x", says="not a folder")
    refused(place, "imatrix", "--checkpoint", "gone", "-o", place, says="is a directory")
    artifact = (place / "artifacts/tiny/gguf/f16", "--checkpoint", place / "model")
    for option, says in (("--json", "a folder; name a file"), ("--junit", "is a directory")):
        refused(place, "parity", *artifact, option, place, "--no-watch", says=says)


@row("a folder without permission")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(place)
    shutil.rmtree(place / "artifacts")
    patch.setattr(os, "access", lambda *_: False)
    says = f"cannot be written ({place} may not be changed)"
    for arguments in (
        ("gguf", "-m", "gone", "-d", "f16"),
        ("export", "-m", "gone", "-o", place / "below"),
        ("compare", "a", "b", "--json", place / "x.json"),
        ("release", "build", "gone"),
        ("imatrix", "--checkpoint", "gone", "-o", place / "x.gguf"),
    ):
        refused(place, *arguments, says=says)


@row("a signing key that is missing, or none")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    for key in ("file", "gone"):
        asked = ("release", "build", place / "artifacts", "--key", place / key)
        refused(place, *asked, "-o", place / "dist", says="not a private EC key")


@row("help with examples")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    for command in ("build", "sign", "verify", "publish"):
        lines = [line.strip() for line in run("release", command, "--help").output.splitlines()]
        begin = [line for line in lines if line.startswith(("python -m export.release", "openssl"))]
        assert begin, command
        assert all(line.count("python -m export.release") <= 1 for line in lines)


@row("wrong types in our files")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    root = place / "artifacts"
    before = statuses(root)
    for name, damage in (
        ("tiny/gguf/q8_0/edgeproof.json", '{"schema": 3, "model": []}'),
        ("tiny/parity.json", '{"schema": "six"}'),
        ("run.json", '{"schema": 1, "models": 3}'),
    ):
        whole = (root / name).read_bytes()
        (root / name).write_text(damage)
        done = run("status", root)
        assert done.exit_code == 0
        assert f"{name}: damaged" in done.output
        assert statuses(root).keys() == before.keys()
        (root / name).write_bytes(whole)
    (root / "tiny/parity.json").write_text('{"schema": "six"}')
    refused(place, "release", "build", root, "-o", place / "dist", says="parity.json: damaged")


@row("a folder that cannot be looked into")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    closed, original = place / "artifacts/tiny/gguf", Path.iterdir

    def look(folder: Path) -> Any:
        if folder == closed:
            raise PermissionError(13, "Permission denied", str(folder))
        return original(folder)

    patch.setattr(Path, "iterdir", look)
    found = statuses(place / "artifacts")
    assert found["gguf"]["unknown"] == "cannot be read (Permission denied)"


@row("a model whose checkpoint is gone")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    record = json.loads((place / "artifacts/run.json").read_text())
    record["models"][0]["checkpoint"] = "/gone/model"
    (place / "artifacts/run.json").write_text(json.dumps(record))
    says = "/gone/model: the checkpoint of tiny is missing; export it again"
    refused(place, "chat", "tiny", "--root", place / "artifacts", says=says)


@row("a checkpoint that nothing is compared with")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    asked = ("--root", place / "artifacts", "--checkpoint", "x")
    refused(place, "parity", *asked, says="explicit artifacts")


@row("a reader of the list that has seen enough")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    command = (
        f"{sys.executable} -m edgeproof status '{place}/artifacts' | head -1; exit $PIPESTATUS"
    )
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 141)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


@row("a umask")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    before = os.umask(0o077)
    try:
        done = run("gguf", "-m", place / "model", "-d", "f16", "-o", place / "out")
    finally:
        os.umask(before)
    assert done.exit_code == 0, done.output
    for path in (place / "out").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@row("folders with spaces for make")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    asked = ("OUT=my files", "PLAN=my plan.toml", "DIST=my dist", "VERSION=1 0")
    for target in ("export-all", "release"):
        done = subprocess.run(
            ["make", "--dry-run", "--always-make", target, *asked, f"VENV={sys.prefix}"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for line in done.stdout.splitlines():
            words = [text.partition("=")[2] for text in asked if text.partition("=")[2] in line]
            assert all(f'"{word}' in line or f'{word}"' in line for word in words), line


@row("another working directory")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(place)
    assert run("gguf", "-m", "model", "-d", "f16", "-o", "out").exit_code == 0
    assert (place / "out/model/gguf/f16/edgeproof.json").is_file()


@row("three exports at once")
def _(place: Path, patch: pytest.MonkeyPatch) -> None:
    asked = ["gguf", "-m", str(place / "model"), "-d", "q8_0", "-o", str(place / "out")]
    command = [sys.executable, "-m", "edgeproof", *asked]
    begun = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(3)]
    said = [process.communicate()[0] for process in begun]
    assert [process.returncode for process in begun] == [0, 0, 0]
    assert sorted(b"reused" in text for text in said) == [False, True, True]


@pytest.mark.parametrize("name", ROWS)
def test_a_command_in_an_awkward_place(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ROWS[name](place, monkeypatch)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_needs_more_has_tests_of_its_own(name: str) -> None:
    for test in ELSEWHERE[name]:
        module, _, function = test.partition(".")
        assert function in names_in(module), f"{test} is gone"


@cache
def names_in(module: str) -> set[str]:
    """Names of the tests that a module has."""
    text = (Path(__file__).parent / f"{module}.py").read_text("utf-8")
    return {item.name for item in ast.parse(text).body if isinstance(item, ast.FunctionDef)}
