"""Compare while a runtime is still being installed: one command beside another.

`python -m tools.beside FILE TARGET -- COMMAND…` has make build TARGET, behind COMMAND in the queue
for the cores, and writes its exit code into FILE when it ends; what make prints goes into FILE.log.
COMMAND's exit code is this one's; if it ends first in an error, or is interrupted, so is make.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

NICE = 10
LINES = 15  # of the log, shown where make failed


def main() -> int:
    """Run both."""
    told, target, separator, *command = sys.argv[1:]
    if separator != "--" or not command:
        raise SystemExit("error: python -m tools.beside FILE TARGET -- COMMAND…")
    file, log = Path(told), Path(f"{told}.log")
    file.unlink(missing_ok=True)
    make = os.environ.get("MAKE", "make")
    print(f"{target} is made meanwhile; {log} tells of it", file=sys.stderr)
    with log.open("wb") as output:
        building = subprocess.Popen(
            ["nice", "-n", str(NICE), make, "--no-print-directory", target],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    threading.Thread(target=_tell, args=(building, file), daemon=True).start()
    signal.signal(signal.SIGTERM, _stop)
    with subprocess.Popen(command) as comparing:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it takes that, and says how to go on
        try:
            code = comparing.wait()
        except SystemExit:
            comparing.terminate()
            code = comparing.wait()
    if building.poll() is None and code:
        os.killpg(building.pid, signal.SIGTERM)
    failed = building.wait()
    if failed and not code:
        code = failed
    if failed > 0:
        lines = log.read_text("utf-8", errors="replace").splitlines()
        print(*lines[-LINES:], sep="\n", file=sys.stderr)
        print(f"error: {target} could not be made; {log} has all of it", file=sys.stderr)
    return code if code >= 0 else 128 - code


def _tell(building: subprocess.Popen[bytes], file: Path) -> None:
    code = building.wait()
    temporary = file.with_name(f"{file.name}.tmp")
    temporary.write_text(f"{code}\n", "ascii")
    temporary.replace(file)


def _stop(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
