"""How many threads runtimes get: --threads, else EDGEPROOF_THREADS, else the processors."""

from __future__ import annotations

import os

import click
import pytest
from click.testing import CliRunner

from edgeproof.cli import main
from runtimes import threads
from runtimes.threads import VARIABLE, threads_option


@click.command()
@threads_option
def printed(threads: int) -> None:
    click.echo(threads)


def threads_of(*arguments: str, **environment: str | None) -> str:
    done = CliRunner().invoke(printed, arguments, env=environment)
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


def test_the_option_goes_before_the_variable_and_that_before_the_processors() -> None:
    assert threads_of("--threads", "3", **{VARIABLE: "5"}) == "3"
    assert threads_of(**{VARIABLE: "5"}) == "5"
    for unset in (None, ""):
        assert threads_of(**{VARIABLE: unset}) == str(len(threads.processors()))


def test_only_processors_that_the_process_may_use_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: {6, 2, 4}, raising=False)
    assert threads.processors() == [2, 4, 6]
    monkeypatch.delattr(threads.os, "sched_getaffinity")
    assert threads.processors() == list(range(os.cpu_count() or 1))


@pytest.mark.parametrize("command", ["chat", "footprint", "parity"])
def test_a_wrong_variable_is_one_line(command: str) -> None:
    done = CliRunner().invoke(main, [command, "artifact"], env={VARIABLE: "many"})
    assert done.exit_code == 2
    assert "--threads" in done.output
    assert len(done.output.splitlines()) == 1


def test_more_threads_than_llama_cpp_can_have_are_refused() -> None:
    done = CliRunner().invoke(printed, ["--threads", "99999999"])
    assert done.exit_code == 2
