"""Try again, with growing pauses, what the network may have failed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from edgeproof.errors import InputError

ATTEMPTS = 6
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds

TOO_MANY, SERVER_ERROR = 429, 500  # HTTP: worth another attempt, as is everything above
# Of these, another attempt would not be better.
FINAL = (PermissionError, FileNotFoundError, IsADirectoryError, NotADirectoryError)

Result = TypeVar("Result")
log = logging.getLogger(__name__)


class DamagedTransferError(OSError):
    """What was read back is not what was sent."""


def persist(
    what: str, call: Callable[[], Result], failures: tuple[type[Exception], ...] = (OSError,)
) -> Result:
    """The call's result; `failures` but `FINAL` ones are tried again, up to `ATTEMPTS` times.

    Raises:
        InputError: it failed every time; `what` names it.
    """
    import tenacity

    attempts = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE),
        retry=tenacity.retry_if_exception_type(failures)
        & tenacity.retry_if_not_exception_type(FINAL),
        before_sleep=tenacity.before_sleep_log(log, logging.WARNING),
        reraise=True,
    )
    try:
        result: Result = attempts(call)
    except failures as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{what}: {reason}; run the same command again to go on") from None
    return result
