"""`edgeproof doctor`: what is there, what is not, and what brings it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass

import click

from edgeproof.command import EdgeproofCommand
from edgeproof.display import printable
from edgeproof.errors import InputError
from runtimes.doctor.checks import Check, checks

SECONDS = 120


@dataclass(frozen=True)
class Finding:
    """What one check came to."""

    name: str
    use: str
    found: str | None
    """In a few words; null: it is missing."""
    missing: str | None
    """Why, and what to do."""

    @property
    def line(self) -> str:
        """For people."""
        sign = "ok" if self.missing is None else "--"
        return f"{sign} {self.name:36}{self.found or self.missing}  ({self.use})"


@click.command(cls=EdgeproofCommand, name="doctor")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--look", metavar="NAME", hidden=True, help="One check, in this process.")
def main(as_json: bool, look: str | None) -> None:
    """Say which runtimes, devices and tools are here, and what brings those that are missing.

    Every runtime is loaded, in a process of its own: some seconds each. Nothing is fetched.
    """
    known = checks()
    if look is not None:
        if look not in known:
            raise InputError(f"--look {look!r}: known are {', '.join(known)}")
        click.echo(json.dumps(asdict(_looked(known[look]))))
        return
    found = []
    for check in known.values():
        finding = _in_a_process(check)
        found.append(finding)
        if not as_json:
            click.echo(printable(finding.line))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found], indent=2))


def _looked(check: Check) -> Finding:
    try:
        return Finding(check.name, check.use, check.look(), None)
    except InputError as error:
        return Finding(check.name, check.use, None, str(error))
    except Exception as error:  # noqa: BLE001  a library may raise anything while it is loaded
        return Finding(check.name, check.use, None, f"does not load: {error or repr(error)}")


def _in_a_process(check: Check) -> Finding:
    """A library that crashes or hangs while it is loaded is one that is broken."""
    command = [sys.executable, "-m", "runtimes.doctor", "--look", check.name]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=SECONDS, encoding="utf-8"
        )
    except subprocess.TimeoutExpired:
        return Finding(check.name, check.use, None, f"did not load within {SECONDS} s")
    try:
        return Finding(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        return Finding(check.name, check.use, None, f"does not load: {said}")


if __name__ == "__main__":
    main()
