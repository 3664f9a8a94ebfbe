"""`python -m runtimes.footprint`: what a runtime needs for an artifact, in a process of its own.

Only there is peak memory the runtime's, and only there is a crash the artifact's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from edgeproof.artifact import Artifact, open_artifact
from edgeproof.command import EdgeproofCommand, run_main
from edgeproof.errors import InputError
from edgeproof.files.cache import cache_folder
from runtimes.adapter import Adapter
from runtimes.protocol import Runtime
from runtimes.registry import adapter_of
from runtimes.runtime_option import runtime_option

PREFILL, DECODE = 256, 16
BRIEF_PREFILL, BRIEF_DECODE = 16, 2  # enough to see a crash
BRIEF_PREFILL, BRIEF_DECODE = 16, 2  # enough to see a crash
STATUS = Path("/proc/self/status")
TEXT = "On 21 June 1999, the ferry left at noon with 42 people, 3 goats and a piano. "


@dataclass(frozen=True)
class Footprint:
    """Costs of opening an artifact, reading and writing, in a process of its own."""

    load_seconds: float
    prefill_tokens: int
    """Tokens that were read."""
    prefill_tokens_per_second: float
    decode_tokens: int
    """Tokens that were written."""
    decode_tokens_per_second: float
    peak_mb: float | None
    """Resident memory (10⁶ bytes) above a process that has only imported the runtime.

    Of a file that is mapped into memory, the pages that were read count. Null where the system
    does not tell.
    """


class Crash(Exception):
    """The process ended without a result; the message says how."""


def footprint(
    artifact: Artifact, threads: int, other: str | None = None, *, brief: bool = False
) -> Footprint:
    """Measure in a new process; once more if the first one had to compile something.

    `brief` reads and writes so little that only a crash means something.

    Raises:
        InputError: the artifact cannot be opened.
        Crash: the process was killed by a signal, or ended with an error that is not its input's.
    """
    command = [sys.executable, "-m", "runtimes.footprint", str(artifact.path)]
    command += [f"--threads={threads}", *([f"--runtime={other}"] if other else [])]
    command += ["--brief"] if brief else []
    command += ["--brief"] if brief else []
    adapter = adapter_of(artifact, other)
    before = _compiled(adapter)
    result = _run(command)
    return result if brief or _compiled(adapter) == before else _run(command)


@click.command(cls=EdgeproofCommand, name="footprint")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--threads", type=click.IntRange(1), default=os.cpu_count(), show_default=True)
@runtime_option(
    "Run it in this runtime, not in its format's usual one.", lambda adapter: adapter.in_process
)
@click.option("--brief", is_flag=True, help="Only a few tokens: does it run at all?")
def main(artifact: Path, threads: int, runtime: str | None, brief: bool) -> None:
    """Open ARTIFACT, read 256 tokens, write 16: seconds, tokens/s and peak memory as JSON."""
    tokens = (BRIEF_PREFILL, BRIEF_DECODE) if brief else (PREFILL, DECODE)
    click.echo(json.dumps(asdict(_measure(open_artifact(artifact), threads, runtime, *tokens))))


def _measure(
    artifact: Artifact, threads: int, other: str | None, prefill: int, decode: int
) -> Footprint:
    """Measure in this process, which has done nothing else before."""
    adapter = adapter_of(artifact, other)
    adapter.load()
    idle = _resident_mb("VmRSS")
    begin = time.perf_counter()
    runtime = adapter.open(artifact, threads)
    opened = time.perf_counter()
    prompt = _prompt(runtime, prefill, decode)
    started = time.perf_counter()
    row = runtime.start(prompt)
    read = time.perf_counter()
    for _ in range(decode):
        row = runtime.step(int(row.argmax()))
    written = time.perf_counter()
    peak = _resident_mb("VmHWM")
    runtime.close()
    return Footprint(
        load_seconds=opened - begin,
        prefill_tokens=len(prompt),
        prefill_tokens_per_second=len(prompt) / (read - started),
        decode_tokens=decode,
        decode_tokens_per_second=decode / (written - read),
        peak_mb=None if idle is None or peak is None else peak - idle,
    )


def _prompt(runtime: Runtime, prefill: int, decode: int) -> list[int]:
    """`prefill` tokens, or what leaves room for the reply in a shorter context."""
    ids = runtime.tokenize(TEXT)
    length = min(prefill, runtime.context - decode)
    return (ids * (length // len(ids) + 1))[:length]


def _resident_mb(field: str) -> float | None:
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


def _run(command: Sequence[str]) -> Footprint:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode < 0:
        name = signal.Signals(-result.returncode).name
        raise Crash(f"the runtime crashes: its process was ended by {name}")
    last = (result.stderr.strip() or "no message").splitlines()[-1]
    if result.returncode == InputError.exit_code:
        raise InputError(last.removeprefix("error: "))
    if result.returncode:
        raise Crash(f"the runtime fails: {last}")
    return Footprint(**json.loads(result.stdout.splitlines()[-1]))


def _compiled(adapter: Adapter) -> set[Path]:
    return set((cache_folder() / adapter.code).glob("*")) if adapter.code else set()


if __name__ == "__main__":
    run_main(main)
