"""The structure that docs/architecture.md promises."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from click import Context
from click.testing import CliRunner

from edgeproof.cli import commands, main
from edgeproof.extras import EXTRAS
from export.formats import OURS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent


def test_imports_go_down_the_picture() -> None:
    lint = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_the_console_script_lists_and_loads_every_command() -> None:
    overview = CliRunner().invoke(main, ["--help"])
    assert overview.exit_code == 0
    for name, entry in commands().items():
        assert name in overview.output
        command = main.get_command(Context(main), name)
        assert command is not None
        below = [[name, part] for part in getattr(command, "commands", {})]
        for arguments in ([name], *below):
            result = CliRunner().invoke(main, [*arguments, "--help"])
            assert result.exit_code == 0
            assert "\\b" not in result.output, f"{arguments}: examples run into each other"
        assert entry.summary == command.get_short_help_str(limit=200), "the list says otherwise"


# The console script as where only the core is installed: `{}` are the missing packages.
WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from edgeproof.cli import main
"""
ONE = "main(sys.argv[1:])"
# Several in one process, which imports what they share once: exit code, stdout and stderr of each.
EACH = """
import contextlib, io, json
ends = []
for arguments in json.loads(sys.argv[1]):
    said, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        try:
            main(arguments)
            code = None
        except SystemExit as end:
            code = end.code
    ends.append((code, said.getvalue(), complained.getvalue()))
print(json.dumps(ends))
"""


def without_extras(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    missing = [package for packages in EXTRAS.values() for package in packages]
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(missing) + code, *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_every_help_is_shown_without_any_extra() -> None:
    asked = [[*words, "--help"] for words in ((), *((name,) for name in commands()))]
    done = without_extras(EACH, json.dumps(asked))
    assert (done.returncode, done.stderr) == (0, "")
    for arguments, (code, said, complained) in zip(asked, json.loads(done.stdout), strict=True):
        assert (code, complained) == (0, ""), arguments
        assert said.startswith("Usage: "), arguments


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [(("compare", "a", "b"), "parity"), (("parity", "--root", "nowhere"), "parity")],
)
def test_a_missing_extra_is_one_line_that_names_it(arguments: tuple[str, ...], extra: str) -> None:
    result = without_extras(ONE, *arguments)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert f'pip install "edgeproof[{extra}]"' in line


def canonical(requirement: str) -> str:
    """A distribution's name as PyPI compares it, without the versions asked for."""
    name = re.split(r"[^\w-]", requirement)[0]
    return re.sub(r"[-_]+", "-", name).lower()


NOT_EVERYWHERE = {"mlx", "openvino"}  # not built for every Python and system


def test_every_extra_of_a_runtime_is_known_by_the_packages_it_installs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for extra, packages in EXTRAS.items():
        asked = {canonical(line) for line in project["optional-dependencies"][extra]}
        brought = packages_distributions()
        if extra in NOT_EVERYWHERE and not brought.keys() >= {*packages}:
            continue
        known = {canonical(name) for package in packages for name in brought[package]}
        assert asked - {"onnxruntime"} <= known, extra
    assert {*project["optional-dependencies"]} == {*EXTRAS, "dev", "docs"}


def test_no_module_grows_beyond_400_lines() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    long = [name for name in tracked if len((ROOT / name).read_text().splitlines()) > 400]
    assert tracked
    assert long == []


def test_no_function_but_a_command_has_more_than_seven_parameters() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for package in ("edgeproof", "export", "runtimes", "benchmarks")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]) > 7
        and not any("command" in ast.unparse(item) for item in node.decorator_list)
    ]
    assert long == []


REGISTRIES = {"export/formats.py", "runtimes/formats/__init__.py"}
# ONNX artifacts have a folder of that name; an extra and libraries are called as formats.
OTHERWISE = {
    "edgeproof/extras.py",
    "runtimes/onnx_folder.py",
    "runtimes/parity/environment.py",
}


def test_only_registries_and_its_own_code_name_a_format() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "edgeproof/*.py", "export/*.py", "runtimes/*.py"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    foreign = {name for name in tracked if OURS.keys().isdisjoint(Path(name[:-3]).parts)}
    naming = {
        name
        for name in foreign - OTHERWISE
        for node in ast.walk(ast.parse((ROOT / name).read_text("utf-8")))
        if isinstance(node, ast.Constant) and node.value in OURS
    }
    assert naming == REGISTRIES
