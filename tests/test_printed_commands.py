"""Every command that README and docs print is one that make or click takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from edgeproof.cli import main
from edgeproof.extras import EXTRAS

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "artifacts" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCED = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:make|edgeproof|python -m) [^`\n]+)`")
# Programs of others, and what a shell does by itself.
OTHERS = {
    ".",
    "dask",
    "eval",
    "gguf-new-metadata",
    "llama-cli",
    "llama-imatrix",
    "model_signing",
    "onnxruntime_genai.models.builder",
    "openssl",
    "optimum-cli",
    "pip",
    "pipx",
    "uvx",
}
OURS = ("benchmarks", "edgeproof", "export", "runtimes", "tests")


def printed() -> Iterator[tuple[str, str]]:
    """Page and command, without what a reader is told beside it."""
    for page in PAGES:
        text = page.read_text("utf-8")
        lines = [
            line
            for block in FENCED.findall(text)
            for line in block.replace("\\\n", " ").splitlines()
        ]
        for line in dict.fromkeys([*lines, *INLINE.findall(FENCED.sub("", text))]):
            command = re.sub(r"\s#\s.*", "", f" {line}").strip()
            if command and not command.startswith("#"):
                yield str(page.relative_to(ROOT)), command


COMMANDS = list(printed())


def test_commands_are_found() -> None:
    pages = {page for page, _ in COMMANDS}
    assert {"README.md", "docs/parity.md", "docs/release.md", "docs/recovery.md"} <= pages


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_printed_command_is_one(page: str, command: str) -> None:
    words = shlex.split(re.split(r" (?:2?>|\|) ", command)[0])
    while "=" in words[0]:
        del words[0]
    if words[0] == "make":
        is_target(words[1:])
    elif words[0] == "edgeproof":
        parses(main, words[1:])
    elif words[:2] in (["python", "-m"], ["python3", "-m"]):
        if words[2] not in OTHERS:
            assert words[2].startswith(OURS)
            module_parses(words[2], words[3:])
    else:
        assert words[0] in OTHERS
        for extra in re.findall(r"edgeproof\[([\w,-]+)\]", command):
            assert set(extra.split(",")) <= {*EXTRAS, "dev"}


def is_target(words: list[str]) -> None:
    targets = [word for word in words if "=" not in word]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in targets:
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE)
    for variable in (word.partition("=")[0] for word in words if "=" in word):
        assert re.search(rf"^{variable} \??=|\$\({variable}\)", makefile, re.MULTILINE)


def module_parses(module: str, words: list[str]) -> None:
    for name in (f"{module}.__main__", module):
        try:
            found = import_module(name)
        except ModuleNotFoundError as error:
            assert error.name == name
            continue
        if isinstance(found.main, click.Command):
            parses(found.main, words)
        else:  # a benchmark that takes what is left
            assert module.startswith("benchmarks")
        return
    pytest.fail(f"no module {module}")


def parses(command: click.Command, words: list[str]) -> None:
    """A command takes these words: options with their values, and no more arguments than it has.

    Paths need not exist, and `…` or a command's name in capitals stands for something.
    """
    context = click.Context(command)
    if isinstance(command, click.Group):
        if not words or words[0].startswith("-"):
            command.make_parser(context).parse_args(list(words))
            return
        if words[0].isupper():
            return
        found = command.get_command(context, words[0])
        assert found is not None, words[0]
        parses(found, words[1:])
        return
    values, rest, _ = command.make_parser(context).parse_args([w for w in words if w != "…"])
    assert not rest, rest
    for parameter in command.params:
        given = values.get(parameter.name)
        if given is not None and isinstance(parameter.type, click.Choice | click.IntRange):
            for value in given if isinstance(given, tuple | list) else [given]:
                parameter.type.convert(value, parameter, context)
