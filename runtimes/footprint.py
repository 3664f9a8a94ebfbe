"""`python -m runtimes.footprint`: what a runtime needs for an artifact, in a process of its own.

Only there is peak memory the runtime's, and only there is a crash the artifact's. Speeds are those
of the machine as it is: what else ran there is told beside them.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Protocol

import click

from edgeproof.artifact import Artifact, described, open_artifact, redescribed
from edgeproof.command import EdgeproofCommand
from edgeproof.errors import DamagedExportError, GateError, InputError
from edgeproof.files.cache import cache_folder
from runtimes.adapter import Adapter
from runtimes.load import Load, Meter, disturbed
from runtimes.protocol import Runtime
from runtimes.registry import adapter_of
from runtimes.runtime_option import runtime_option
from runtimes.threads import threads_option

# Seconds of runs after which there is no other one: large models are slow, and vary less.
ENOUGH = 10.0
# Seconds after which a process hangs. It takes seconds, minutes where a large model is compiled on
# a busy machine first.
LIMIT = 1200.0
STATUS = Path("/proc/self/status")
log = logging.getLogger(__name__)
TEXT = "On 21 June 1999, the ferry left at noon with 42 people, 3 goats and a piano. "


@dataclass(frozen=True)
class Amount:
    """How many tokens are read and written, and how often at most."""

    prefill: int
    decode: int
    runs: int

    def within(self, context: int) -> Amount:
        """What leaves room for a prompt where the model takes hardly more than the reply."""
        return replace(self, decode=min(self.decode, context // 2))


WHOLE = Amount(256, 16, 3)
BRIEF = Amount(16, 2, 1)  # enough to see a crash


@dataclass(frozen=True)
class Footprint:
    """Costs of opening an artifact, reading and writing, in a process of its own."""

    load_seconds: float
    load_cpu_seconds: float
    """Of all threads, as everywhere here."""
    runs: int
    """How often it read and wrote: speeds are medians."""
    prefill_tokens: int
    """Tokens that were read."""
    prefill_tokens_per_second: float
    prefill_tokens_per_cpu_second: float
    """Hardly changed by what else runs."""
    decode_tokens: int
    """Tokens that were written."""
    decode_tokens_per_second: float
    decode_tokens_per_cpu_second: float
    threads: int
    """What the runtime was given."""
    other_cores: float | None
    """Cores that other programs and the hypervisor took meanwhile; null where nothing tells."""
    disturbed: bool
    """Whether that left the threads less than a core each: then the speeds are too low."""
    peak_mb: float | None
    """Resident memory (10⁶ bytes) above a process that has only imported the runtime.

    Of a file that is mapped into memory, the pages that were read count. Null where the system
    does not tell.
    """

    @property
    def warning(self) -> str | None:
        """What to say of speeds that were disturbed."""
        if not self.disturbed or self.other_cores is None:
            return None
        return (
            f"other programs took {self.other_cores:.1f} cores meanwhile, so that its"
            f" {self.threads} threads had too few: speeds are too low"
        )


class Costs(Protocol):
    """What measures footprints: `footprint`, or who knows them already."""

    def __call__(
        self, artifact: Artifact, threads: int, other: str | None = None, *, brief: bool = False
    ) -> Footprint:
        """As `footprint`."""


FAILS = "the runtime fails: "


class Crash(Exception):
    """The process ended without a result; the message says how."""


def footprint(
    artifact: Artifact, threads: int, other: str | None = None, *, brief: bool = False
) -> Footprint:
    """Measure in a new process; once more if the first one had to compile something.

    `brief` reads and writes so little that only a crash means something.

    A process that has measured and then does not end is ended after `LIMIT` seconds; what it
    measured holds.

    Raises:
        InputError: the artifact cannot be opened.
        Crash: the process was killed by a signal, ended with an error that is not its input's, or
            has not measured within `LIMIT` seconds.
    """
    command = [sys.executable, "-m", "runtimes.footprint", str(artifact.path)]
    command += [f"--threads={threads}", *([f"--runtime={other}"] if other else [])]
    command += ["--brief"] if brief else []
    told = None if artifact.foreign is None else described(artifact, artifact.foreign)
    command += ["--described"] if told else []
    adapter = adapter_of(artifact, other)
    before = _compiled(adapter)
    result = _run(command, told)
    return result if brief or _compiled(adapter) == before else _run(command, told)


@click.command(cls=EdgeproofCommand, name="footprint")
@click.argument("artifact", type=click.Path(path_type=Path))
@threads_option
@runtime_option(
    "Run it in this runtime, not in its format's usual one.", lambda adapter: adapter.in_process
)
@click.option("--brief", is_flag=True, help="Only a few tokens: does it run at all?")
@click.option("--described", "told", is_flag=True, hidden=True)  # on stdin: it has no manifest
def main(artifact: Path, threads: int, runtime: str | None, brief: bool, told: bool) -> None:
    """Open ARTIFACT, read 256 tokens, write 16: seconds, tokens/s and peak memory as JSON.

    It reads and writes three times; speeds are medians. Where other programs took the cores, it
    says so.
    """
    opened = redescribed(sys.stdin.read()) if told else open_artifact(artifact)
    try:
        found = _measure(opened, threads, runtime, BRIEF if brief else WHOLE)
    except DamagedExportError as error:
        raise (InputError(error.of_others) if told else error) from None
    except InputError:
        raise
    except Exception as error:  # a runtime may raise anything over a file
        reason = str(error).partition("\n")[0]
        raise GateError(f"{artifact}: {FAILS}{type(error).__name__}: {reason}") from error
    click.echo(json.dumps(asdict(found)))
    if found.warning:
        click.echo(f"warning: {found.warning}", err=True)


def _measure(artifact: Artifact, threads: int, other: str | None, amount: Amount) -> Footprint:
    """Measure in this process, which has done nothing else before."""
    adapter = adapter_of(artifact, other)
    adapter.load()
    idle = resident_mb("VmRSS")
    whole = Meter()
    runtime = adapter.open(artifact, threads)
    opened = whole.load()
    amount = amount.within(runtime.context)
    prompt = _prompt(runtime, amount)
    reading: list[Load] = []
    writing: list[Load] = []
    while len(reading) < amount.runs and sum(run.seconds for run in reading + writing) < ENOUGH:
        meter = Meter()
        row = runtime.start(prompt)
        reading.append(meter.load())
        meter = Meter()
        for _ in range(amount.decode):
            row = runtime.step(int(row.argmax()))
        writing.append(meter.load())
    others = whole.load().others
    peak = resident_mb("VmHWM")
    runtime.close()
    return Footprint(
        load_seconds=opened.seconds,
        load_cpu_seconds=opened.cpu_seconds,
        runs=len(reading),
        prefill_tokens=len(prompt),
        prefill_tokens_per_second=len(prompt) / median(run.seconds for run in reading),
        prefill_tokens_per_cpu_second=_per_cpu_second(len(prompt), reading),
        decode_tokens=amount.decode,
        decode_tokens_per_second=amount.decode / median(run.seconds for run in writing),
        decode_tokens_per_cpu_second=_per_cpu_second(amount.decode, writing),
        threads=threads,
        other_cores=others,
        disturbed=disturbed(others, threads, os.cpu_count() or threads),
        peak_mb=None if idle is None or peak is None else peak - idle,
    )


def _per_cpu_second(tokens: int, runs: Sequence[Load]) -> float:
    """The clock may be coarser than what it measures, and show nothing."""
    tick = time.get_clock_info("process_time").resolution
    return tokens / max(tick, median(run.cpu_seconds for run in runs))


def _prompt(runtime: Runtime, amount: Amount) -> list[int]:
    """As many tokens, or what leaves room for the reply in a shorter context."""
    ids = runtime.tokenize(TEXT)
    length = min(amount.prefill, runtime.context - amount.decode)
    return (ids * (length // len(ids) + 1))[:length]


def resident_mb(field: str) -> float | None:
    """Resident memory now (VmRSS) or at most (VmHWM); None where the system does not tell.

    macOS tells only of the most. Not `ru_maxrss` on Linux: that counts the process that started
    this one.
    """
    if STATUS.exists():
        text = STATUS.read_text("ascii", errors="replace")
        line = next(line for line in text.splitlines() if line.startswith(field))
        return int(line.split()[1]) * 1024 / 1e6
    if sys.platform == "win32":
        return None
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1e6  # macOS counts bytes


def _run(command: Sequence[str], told: str | None) -> Footprint:
    """Run it; what it is `told` comes on its stdin."""
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=LIMIT, input=told
        )
    except subprocess.TimeoutExpired as hung:
        return _told(hung.stdout)
    if result.returncode < 0:
        name = signal.Signals(-result.returncode).name
        raise Crash(f"the runtime crashes: its process was ended by {name}")
    last = (result.stderr.strip() or "no message").splitlines()[-1].removeprefix("error: ")
    if result.returncode == InputError.exit_code:
        raise InputError(last)
    if result.returncode:
        raise Crash(FAILS + last.rpartition(FAILS)[2])
    return Footprint(**json.loads(result.stdout.splitlines()[-1]))


def _told(output: bytes | str | None) -> Footprint:
    """What a process that hung had measured: some libraries wait for their threads at the end."""
    try:
        found = Footprint(**json.loads((output or b"").splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        raise Crash(f"the runtime hangs: not done after {LIMIT:.0f} seconds") from None
    log.warning("a runtime did not end after it was measured, and was ended")
    return found


def _compiled(adapter: Adapter) -> set[Path]:
    return set((cache_folder() / adapter.code).glob("*")) if adapter.code else set()


if __name__ == "__main__":
    main()
