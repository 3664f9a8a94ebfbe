"""One rule for the schema number in every file of ours.

An older file is read, up to the oldest whose facts are still enough; a newer one is refused with
the version that can read it. What is written has the current number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeproof import __version__
from edgeproof.errors import InputError

# It stands in an error of one line, and comes from a file that anybody may have written.
VERSION = re.compile(r"[0-9A-Za-z.+!-]{1,40}")


class NewerFileError(InputError):
    """A newer edgeproof wrote the file: nothing is wrong with it."""


@dataclass(frozen=True)
class Schema:
    """The numbers of one kind of file; `again` tells how it is made anew, `what` what it is.

    `writer` are the keys at which it says the version of edgeproof that wrote it.
    """

    current: int
    oldest: int
    again: str
    what: str = "a file of edgeproof"
    writer: tuple[str, ...] = ("edgeproof",)

    def check(self, number: object, source: str, written_by: object = None) -> int:
        """The number of a file that can be read; `source` names it in errors.

        `written_by` is the version of edgeproof that the file says it is of, if it does.

        Raises:
            NewerFileError: too new.
            InputError: older than what is still read.
            TypeError: not a number, so it is no file of ours.
        """
        if type(number) is not int:
            raise TypeError("the schema is not a number")
        if number > self.current:
            known = isinstance(written_by, str) and VERSION.fullmatch(written_by)
            writer = f"edgeproof {written_by}" if known else "a newer edgeproof"
            raise NewerFileError(
                f"{source}: written by {writer} (schema {number}), this is {__version__};"
                " upgrade edgeproof"
            )
        if number < self.oldest:
            raise InputError(f"{source}: schema {number}, older than {self.oldest}; {self.again}")
        return number
