"""A slow test that is skipped fails, so that `make verify` cannot pass over what it did not run.

`EDGEPROOF_ALLOW_MISSING=webgpu,browser` names what this machine may lack. A hook of pytest: the
tests' conftest.py has it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Generator
from typing import NoReturn

import pytest

VARIABLE = "EDGEPROOF_ALLOW_MISSING"
# A WebLLM library of your own, compiled by mlc_llm, which is on no registry.
MODEL_LIBRARY = "model-library"
# A package of real weights under terms of their own, which no set-up installs.
GEMMA = "gemma"


def missing(name: str, why: str) -> NoReturn:
    """Skip the test for want of something; `why` says where it comes from."""
    pytest.skip(f"{name}: {why}")


def need(package: str, extra: str) -> None:
    """Skip the test where an extra's package is not installed."""
    try:
        importlib.import_module(package)
    except ModuleNotFoundError:
        missing(extra, f'pip install "edgeproof[{extra}]"')


def may_be_missing() -> set[str]:
    """The names that a slow test may be skipped for."""
    return {MODEL_LIBRARY, GEMMA, *map(str.strip, os.environ.get(VARIABLE, "").split(","))}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    expected = hasattr(report, "wasxfail")
    if report.skipped and not expected and item.get_closest_marker("slow") is not None:
        assert isinstance(report.longrepr, tuple)
        reason = report.longrepr[2].removeprefix("Skipped: ")
        name, colon, _ = reason.partition(":")
        if not colon or name not in may_be_missing():
            report.outcome = "failed"
            report.longrepr = f"{reason}\nNo slow test may be skipped, unless {VARIABLE} names why."
    return report
