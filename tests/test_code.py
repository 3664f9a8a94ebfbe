"""What our code is: two that say the same have one digest, and steps are done by theirs alone."""

from __future__ import annotations

import subprocess
from pathlib import Path, PurePosixPath

import pytest
from click.testing import CliRunner

from edgeproof.files.code import SHOWN, SUFFIXES, code_behind, code_digest
from edgeproof.steps.children import Children
from edgeproof.steps.job import write_job
from edgeproof.steps.results import attempts, find
from edgeproof.steps.store import Store, open_store
from edgeproof.steps.work import JOB, Work, perform
from export.steps import variant
from tests.brought import declare
from tests.stepping import step

ROOT = Path(__file__).parent.parent
NAME = "of_this_test"  # no module of anybody's


@pytest.fixture
def here(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that is found, not imported yet."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    folder = tmp_path / "site" / NAME
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_bytes(b"import nothing_that_is_there\n")
    (folder / "inner" / "page.js").write_bytes(b"1\n2\n")
    return folder


def digest(*inner: str) -> str:
    found = code_digest(NAME, *inner)
    assert found is not None
    return found


def test_a_digest_is_of_what_the_code_says_and_nothing_else(package: Path) -> None:
    before = digest()
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "inner.cpython-311.pyc").write_bytes(b"\0")
    for name in (".#page.js", ".page.js.swp", "page.js~", ".DS_Store"):
        (package / "inner" / name).write_text("?")
    (package / ".ipynb_checkpoints").mkdir()
    (package / ".ipynb_checkpoints" / "a.py").write_text("?")
    (package / "inner" / "page.js").write_bytes(b"1\r\n2\r\n")  # as git has it on Windows
    assert digest() == before
    assert digest() == code_digest(NAME)
    assert digest("inner/page.js", "__init__.py") == before
    found = {before, digest("inner")}
    (package / "inner" / "page.js").write_bytes(b"1\n3\n")
    found.add(digest())
    (package / "inner" / "page.js").rename(package / "page.js")
    found.add(digest())
    (package / "page.js").unlink()
    found.add(digest())
    assert len(found) == 5
    assert code_digest("no_such_package_at_all") is None


def test_all_that_packages_have_is_code() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "edgeproof", "export", "runtimes"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode or not listed.stdout:
        pytest.skip("no checkout")
    assert {PurePosixPath(name).suffix for name in listed.stdout.split()} == SUFFIXES


def test_each_side_depends_on_its_own_code_and_on_plugins(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = code_behind("none").keys() - {"edgeproof"}  # of plugins that are installed here
    for side in ("export", "runtimes"):
        assert code_behind(f"{side}.steps.plan").keys() == {"edgeproof", side, *others}
    declare(package.parent, formats=f"mine = {NAME}.inner:FORMAT")
    assert code_behind("export.steps.plan")[NAME] == digest()


def test_steps_are_done_by_the_code_that_they_were_planned_with(here: Store, package: Path) -> None:
    first = step("a", code={NAME: digest()})
    assert perform(first, Work(here, Children())).failed is None
    (package / "inner" / "page.js").write_text("3")
    second = step("a", code={NAME: digest()})
    assert second.key != first.key
    other = step("b", code={NAME: "0" * 64})
    outcome = perform(other, Work(here, Children()))
    assert outcome.failed is not None
    assert outcome.failed.endswith(
        f" has other code of {NAME} ({digest()[:SHOWN]}), the run was begun with {'0' * SHOWN};"
        " install the same there, or run again where it was edited"
    )
    assert attempts(here, other.key) == []
    gone = perform(step("c", code={"not_here_at_all": "0" * 64}), Work(here, Children()))
    assert " has no not_here_at_all, the run was begun with " in str(gone.failed)


def test_what_is_made_while_the_code_is_edited_is_kept_nowhere(here: Store, package: Path) -> None:
    edits = step("a", note=str(package / "inner" / "page.js"), code={NAME: digest()})
    outcome = perform(edits, Work(here, Children()))
    assert f" has other code of {NAME} " in str(outcome.failed)
    assert find(here, edits.key) is None


def test_a_process_that_finds_other_code_says_so(tmp_path: Path) -> None:
    """`python -m` looks first where it is run, the console script that begins it does not."""
    write_job(tmp_path / JOB, {}, {}, tmp_path, {"export": "0" * 64})
    done = CliRunner().invoke(variant.main, [str(tmp_path / JOB)])
    assert done.exit_code == 2
    (line,) = done.output.splitlines()
    assert "has other code of export (" in line
