"""How every command ends: its exit code, one line of why, nothing half-written.

Invariant: no error leaves `end`. What a command has begun is undone by its own `with` and `finally`
blocks: a signal is an exception like others.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

import click

from edgeproof import __version__
from edgeproof.display import one_line
from edgeproof.errors import GateError, InputError
from edgeproof.processes import end_with_beginner

# A fault of edgeproof itself: neither bad input (2) nor a gate that was not met (1).
UNFORESEEN = 70
OF_A_SIGNAL = 128
CLOSED_PIPE = 141  # as where SIGPIPE ends a program
KEPT = "nothing half-written is left, and the same command begins again"
# Signals that come sooner than so many seconds are one wish, and must not end the tidying up.
ONE_WISH = 2.0
A_MOMENT = 0.01  # seconds
HELP_WITHOUT_ARGUMENTS: type[Exception] | tuple[()] = getattr(
    click.exceptions, "NoArgsIsHelpError", ()
)

log = logging.getLogger(__name__)


class Stopped(SystemExit):
    """Somebody ends the program: by a signal, or by closing the pipe that it writes into."""


@dataclass
class Session:
    """What a run of a command has said of itself yet: the object of its click context.

    `kept` is what an end before its time leaves, and how to go on; with `takes_interrupts` Ctrl-C
    is for the command itself, as KeyboardInterrupt.
    """

    debug: bool = False
    logs_json: bool = False
    kept: str = KEPT
    takes_interrupts: bool = False


def end(run: Callable[[], object], session: Session) -> int:
    """Run a command that raises what it cannot do; its exit code, with all said that is to say."""
    _take_all_characters()
    with _signals(session):
        told_by_another = end_with_beginner()
        try:
            code = _run(run, session)
            with contextlib.suppress(AttributeError):  # there is no stdout
                sys.stdout.flush()
        except Stopped as stop:
            code = int(stop.code or 0)
            if code != CLOSED_PIPE and not told_by_another:
                _say(session, "interrupted", session.kept, code)
        except BrokenPipeError:
            code = CLOSED_PIPE
        except OSError as error:
            code = _failed(session, *_meaning(error, session))
    if code in (CLOSED_PIPE, InputError.exit_code):
        _forget_unwritten()
    return code


def _take_all_characters() -> None:
    """Have streams escape what their encoding has not, as `≤` in Latin-1, rather than refuse it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            if stream.errors == "strict":
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


@contextlib.contextmanager
def told_of_its_end() -> Iterator[None]:
    """Turn what click would end the program for into `Stopped`."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(OF_A_SIGNAL + signal.SIGINT) from None
    except BrokenPipeError:
        raise Stopped(CLOSED_PIPE) from None


def _run(run: Callable[[], object], session: Session) -> int:
    try:
        code = run()
    except (SystemExit, OSError):
        raise
    except HELP_WITHOUT_ARGUMENTS as error:
        click.echo(str(error), err=True)
        return InputError.exit_code
    except BaseException as error:  # noqa: BLE001 - a panic in Rust is no `Exception`
        return _failed(session, *_meaning(error, session))
    return code if isinstance(code, int) else 0


def _meaning(error: BaseException, session: Session) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    if isinstance(error, GateError):  # it may list what was missed
        return str(error), error.exit_code
    if isinstance(error, InputError):
        return one_line(str(error)), error.exit_code
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        more = f"; {context.command_path} --help tells more" if context else ""
        text = " ".join(error.format_message().split())
        return text.rstrip(".") + more, InputError.exit_code
    if isinstance(error, OSError):
        return one_line(_of_the_system(error)), InputError.exit_code
    if isinstance(error, MemoryError):
        return "there is not enough memory", InputError.exit_code
    what = traceback.format_exception_only(error)[-1].strip().partition("\n")[0]
    ask = "this is a fault of edgeproof; please report it with"
    return f"{what}: {ask} {_written(session, error)}", UNFORESEEN


def _failed(session: Session, message: str, code: int) -> int:
    if session.debug:
        with contextlib.suppress(OSError):
            click.echo(traceback.format_exc(), err=True, nl=False)
    _say(session, "failed", message, code)
    return code


def _of_the_system(error: OSError) -> str:
    """What the machine refuses, in a line."""
    if error.strerror is None:
        return str(error) or type(error).__name__
    name = error.filename
    return f"{os.fsdecode(name)}: {error.strerror}" if isinstance(name, str | bytes) else str(error)


def _written(session: Session, error: BaseException) -> str:
    """Where the traceback is."""
    import platform
    import tempfile

    again = "what --debug shows"
    if session.debug:
        return again
    about = f"edgeproof {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
    text = f"{about}{' '.join(sys.argv)}\n\n{''.join(traceback.format_exception(error))}"
    try:
        handle, path = tempfile.mkstemp(prefix="edgeproof-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return again
    return path


def _say(session: Session, event: str, message: str, code: int) -> None:
    """One line on stderr, where that can be written."""
    with contextlib.suppress(OSError):
        if session.logs_json:
            log.error(event, extra={"error": message, "exit_code": code})
        elif event == "failed":
            click.echo(f"error: {message}", err=True)
        else:
            click.echo(f"{event}: {message}", err=True)


def _forget_unwritten() -> None:
    """Have Python not try again, as it ends, to write what could not be written to stdout."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stdout.flush()
        return
    with contextlib.suppress(AttributeError, OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _signals(session: Session) -> Iterator[None]:
    """Signals that ask the program to end raise `Stopped` in the block.

    Those that are ignored, as under nohup, stay so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = [signal.SIGINT, signal.SIGTERM]
    if sys.platform != "win32":
        asked.append(signal.SIGHUP)
    last, later = -ONE_WISH, threading.Timer(0, lambda: None)

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        if number == signal.SIGINT and session.takes_interrupts:
            raise KeyboardInterrupt
        if now - last >= ONE_WISH:
            last = now
            raise Stopped(OF_A_SIGNAL + number)

    def again(unraisable: sys.UnraisableHookArgs) -> None:
        """In a `__del__` Python drops what is raised: it comes again a moment later."""
        nonlocal last, later
        if not isinstance(unraisable.exc_value, Stopped):
            hook(unraisable)
            return
        last = -ONE_WISH
        number = int(unraisable.exc_value.code or 0) - OF_A_SIGNAL
        later.cancel()
        later = threading.Timer(A_MOMENT, os.kill, (os.getpid(), number))
        later.start()

    before = {number: signal.getsignal(number) for number in asked}
    ours = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in ours:
        signal.signal(number, stop)
    hook, sys.unraisablehook = sys.unraisablehook, again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        later.cancel()
        for number in ours:
            signal.signal(number, before[number])
