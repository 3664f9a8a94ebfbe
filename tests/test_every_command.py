"""Whatever is typed, set or lying there: a command ends as documented and leaves nothing half-done.

What takes long, or asks a network, is in place of what follows the checks that are tested here.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import click
import pytest
from click.testing import CliRunner

from edgeproof.cli import main
from edgeproof.errors import InputError
from edgeproof.files.atomic import TEMPORARY
from export.sources.resolver import BUILT_IN
from tests.small_root import make_small_root

DOCUMENTED = {0, 1, 2}
ARGUMENTS, DAMAGES = 900, 120  # cases
TEXTS = (
    "", " ", "x", "f16", "q8_0", "fp32", "q4f16_1", "gguf/f16", "1.0", "-", "--", "--help", "..",
    "a\nb", "é", "\udcff", "🙂", "a\0b", "%s{}", "x" * 5000, "no/where", "None", "http://",
)  # fmt: skip
NUMBERS = ("0", "1", "-1", "7", "512", "1e9", "nan", "inf", "9" * 30, "x", "", "0.5")
PATHS = (
    "model", "model/config.json", "artifacts", "artifacts/tiny", "artifacts/tiny/gguf/f16",
    "artifacts/tiny/gguf/q8_0", "artifacts/run.json", "artifacts/tiny/parity.json", "out", "out/x",
    "gone", "gone/x", "file", "file/x", "link", "loop", ".", "", "a\0b", "x" * 300,
)  # fmt: skip
ENVIRONMENTS: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    ("EDGEPROOF_CACHE", ("file", "file/x", "x" * 300, "loop", "/proc/read-only")),
    ("EDGEPROOF_WATCH", ("0", "no", "maybe", "")),
    ("COLUMNS", ("0", "1", "80", "-5", "abc", "100000", "")),
    ("NO_COLOR", ("1", "")),
    ("TERM", ("dumb", "xterm-256color", "")),
    ("HOME", ("/", "gone", "", None)),
    ("LANG", ("C", "de_DE.ISO-8859-1", "x", None)),
    ("LC_ALL", ("C", "POSIX", "")),
    ("TMPDIR", ("gone", "file", "", None)),
    ("EDGEPROOF_THREADS", ("0", "x", "1")),
    ("GITHUB_STEP_SUMMARY", ("file", "gone/x", "artifacts", "")),
)


ENCODINGS = ("utf-8", "utf-8", "utf-8", "ascii", "latin-1", "cp1252")  # of a terminal or a file


def refuse(*_: object, **__: object) -> NoReturn:
    raise InputError("what follows takes long")


SLOW = (
    "edgeproof.steps.command._asked",
    "export.sources.hub.resolve_hub",
    "export.onnx.traced.environment.isolated_environment",
    "export.release.dist.build",
    "export.release.signature.sign",
    "export.release.publish.destinations.open_destination",
    "runtimes.audit.hub.fetched",
    "runtimes.located.located",
    "runtimes.parity.watched.watch",
    "runtimes.demo.build.web_packages",
    "runtimes.demo.__main__.make_server",
    "runtimes.adapter.OptionalModule.load",
    "runtimes.doctor.__main__._in_a_process",
)


FROM_STUBS = "runtimes.parity.models"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder, with all that commands take, small."""
    place = tmp_path_factory.mktemp("place") / "work"
    place.mkdir()
    make_small_root(place)
    (place / "file").write_text("x")
    (place / "edgeproof.toml").write_text('[[variant]]\nformat = "gguf"\ndtype = "f16"\n')
    (place / "link").symlink_to("gone")
    (place / "loop").symlink_to("loop")
    shutil.copytree(place, place.with_name("whole"), symlinks=True)
    reports = SimpleNamespace(write_reports=refuse, write_summaries=refuse)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
        patch.setattr("tempfile.tempdir", None)  # set anew for each command
        for name in SLOW:
            patch.setattr(name, refuse)
        patch.setattr("edgeproof.plugins.brought", lambda *_: {})  # reads what is installed
        for name in BUILT_IN:
            patch.setitem(BUILT_IN, name, refuse)
        patch.setattr("runtimes.parity.__main__.OUTPUTS", SimpleNamespace(load=lambda: reports))
        modules = {
            "runtimes.parity.run": (
                "Conditions", "Extent", "ParityRun", "Request", "patient_parity", "run_parity",
            ),
            "runtimes.parity.comparison": ("compare_artifacts",),
            "runtimes.recover.run": ("Request", "recover"),
        }  # fmt: skip
        for name, contents in modules.items():
            stub = SimpleNamespace(**dict.fromkeys(contents, refuse))
            patch.setitem(sys.modules, name, stub)
        before = sys.modules.get(FROM_STUBS)
        yield place
        if before is None and sys.modules.pop(FROM_STUBS, None):  # it has taken the stand-ins
            delattr(sys.modules["runtimes.parity"], "models")


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below a group, by the words that name it."""
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            if isinstance(command, click.Group):
                yield from commands(command, *path, name)
            else:
                yield (*path, name), command


def words(command: click.Command, dice: random.Random) -> Iterator[str]:
    """Arguments that a command may be given: some that it takes, and some that nothing does."""
    for parameter in command.params:
        if parameter.name in ("log_json", "debug"):  # for all tests that follow; tracebacks
            continue
        option = isinstance(parameter, click.Option)
        if dice.random() > (0.25 if option and not parameter.required else 0.85):
            continue
        value = values(parameter, dice)
        if isinstance(parameter, click.Option):
            name = dice.choice([*parameter.opts, *parameter.secondary_opts])
            yield from (name,) if parameter.is_flag else (name, value)
        else:
            yield value
    if dice.random() < 0.1:
        yield dice.choice(TEXTS)


def values(parameter: click.Parameter, dice: random.Random) -> str:
    """Something for a parameter."""
    kind = parameter.type
    if isinstance(kind, click.Choice) and dice.random() < 0.8:
        return str(dice.choice(list(kind.choices)))
    if isinstance(kind, click.Path):
        return dice.choice(PATHS)
    if isinstance(kind, click.IntRange | click.FloatRange):
        return dice.choice(NUMBERS)
    if parameter.name in ("model", "models", "address"):
        return dice.choice((*PATHS[:6], "model", "model", "org/name", "bundled"))
    return dice.choice(TEXTS)


def ends_well(
    place: Path,
    arguments: tuple[str, ...],
    case: str,
    env: dict[str, str | None] | None = None,
    encoding: str = "utf-8",
) -> None:
    """Run a command: a documented exit code, no traceback, no file that is half of something."""
    tempfile.tempdir = None  # it is looked for anew
    done = CliRunner(charset=encoding).invoke(main, arguments, env=env)
    said = f"{case}: {arguments} {env} {encoding}\n{done.output[-2000:]}"
    assert done.exit_code in DOCUMENTED, said
    assert isinstance(done.exception, SystemExit | None), said
    assert "Traceback" not in done.output, said
    if done.exit_code == InputError.exit_code:
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, said
    assert not [name for name in everything_below(place) if TEMPORARY in name], said


def everything_below(folder: Path) -> set[str]:
    """Names of all folders and files, with their place."""
    return {f"{place}/{name}" for place, *names in os.walk(folder) for name in chain(*names)}


DAMAGED = (
    "artifacts/run.json",
    "artifacts/tiny/parity.json",
    "artifacts/tiny/elsewhere.json",
    "artifacts/tiny/evaluation.json",
    "artifacts/tiny/gguf/f16/edgeproof.json",
    "model/config.json",
    "model/tokenizer.json",
    "edgeproof.toml",
)
READING: tuple[tuple[str, ...], ...] = (
    ("status", "artifacts"),
    ("status", "artifacts", "--json"),
    ("status", "artifacts", "--check"),
    ("clean", "artifacts", "--stale", "--dry-run"),
    ("parity",),
    ("parity", "artifacts/tiny/gguf/f16", "--checkpoint", "model"),
    ("compare", "artifacts/tiny/gguf/f16", "artifacts/tiny/gguf/q8_0"),
    ("release", "build"),
    ("chat", "tiny"),
    ("chat", "artifacts/tiny/gguf/f16"),
    ("footprint", "artifacts/tiny/gguf/f16"),
    ("demo", "build", "out"),
    ("gguf", "-m", "model", "-d", "f16", "-o", "artifacts", "--dry-run"),
    ("export", "-m", "model", "--dry-run"),
)
JUNK = (
    None, True, 0, -1, 1.5, 10**400, 2**63, "", "x", "\ud800", "\x1b[2J\n", [], {}, [[]], {"a": 1},
    [None], "9" * 5000,
)  # fmt: skip
RAW = (
    b"",
    b"{",
    b"[" * 50_000,
    b"\xff\xfe",
    b"null",
    b'{"schema": 1e999}',
    b'{"schema": NaN}',
    b"\0",
)


def damaged(data: bytes, dice: random.Random) -> bytes:
    """What is left of a file."""
    how = dice.randrange(4)
    if how == 0:
        return dice.choice(RAW)
    if how == 1:
        return data[: dice.randrange(len(data))]
    if how == 2 or not data.startswith(b"{"):
        place = dice.randrange(len(data))
        return data[:place] + bytes([dice.randrange(256)]) + data[place + 1 :]
    raw = json.loads(data)
    here: Any = raw
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        key = dice.choice(keys)
        if not (isinstance(here[key], dict | list) and here[key]) or dice.random() < 0.2:
            break
        here = here[key]
    if dice.random() < 0.3:
        del here[key]
    else:
        here[key] = dice.choice(JUNK)
    return json.dumps(raw).encode()


@contextlib.contextmanager
def one_damaged(place: Path, dice: random.Random) -> Iterator[str]:
    """Damage one of the files, and put everything back; says what is damaged and how."""
    path = place / dice.choice(DAMAGED)
    whole = path.read_bytes()
    path.write_bytes(damaged(whole, dice))
    yield f"{path.relative_to(place)} {path.read_bytes()[:300]!r}"
    if path.parent.exists():
        path.write_bytes(whole)
    if not all((place / name).exists() for name in DAMAGED):  # as `clean` does
        whole_root = place.with_name("whole") / "artifacts"
        shutil.copytree(whole_root, place / "artifacts", dirs_exist_ok=True)


def test_any_arguments_in_any_environment_with_a_damaged_file(place: Path) -> None:
    everything = dict(commands(main))
    assert {("gguf",), ("release", "verify"), ("demo", "build")} <= everything.keys()
    dice = random.Random(0)
    for number in range(ARGUMENTS):
        path = dice.choice(list(everything))
        arguments = (*path, *words(everything[path], dice))
        env = {name: dice.choice(found) for name, found in ENVIRONMENTS if dice.random() < 0.3}
        with one_damaged(place, dice) as damage:
            ends_well(place, arguments, f"case {number}, {damage}", env, dice.choice(ENCODINGS))
        shutil.rmtree(place / "out", ignore_errors=True)


def test_any_damage_is_read_and_nothing_is_changed(place: Path) -> None:
    dice = random.Random(1)
    for number in range(DAMAGES):
        with one_damaged(place, dice) as damage:
            before = everything_below(place)
            ends_well(place, dice.choice(READING), f"case {number}, {damage}")
            assert everything_below(place) == before, damage
