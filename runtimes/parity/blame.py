"""Say what an artifact does wrong: a reader or a runtime may raise anything over what it contains.

Invariant: only what is of no file ends a run.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

from edgeproof.errors import DamagedExportError, InputError
from runtimes.footprint import Crash

# Somebody ends the run.
OF_NO_FILE = (KeyboardInterrupt, SystemExit, GeneratorExit)
ROOT = str(Path(__file__).parents[2])

log = logging.getLogger(__name__)


def blame(error: BaseException, *, foreign: bool = False) -> str:
    """Why the artifact in hand cannot be judged, in a line; `foreign` is one that others made.

    A refusal of ours is its message; anything else is named with the innermost line of this project
    that it went through: `KeyError: 'bits' (mlc.py, line 40)`. `BaseException`, since a panic in a
    library written in Rust is no `Exception`.

    Raises:
        BaseException: the error itself, where it is of no file.
    """
    if isinstance(error, OF_NO_FILE):
        raise error
    if foreign and isinstance(error, DamagedExportError):
        return error.of_others
    if isinstance(error, InputError | Crash):
        return str(error)
    log.debug("not foreseen", exc_info=error)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(ROOT)]
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}{text and ': '}{text}{place}"
