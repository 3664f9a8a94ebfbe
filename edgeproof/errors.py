"""The two ways a command ends badly, each with its exit code.

Library code raises them; only the command line turns them into one line on stderr.
"""

from __future__ import annotations


class InputError(Exception):
    """Bad input or usage. The message is one line that names the file or tensor and the fix."""

    exit_code = 2


class DamagedExportError(InputError):
    """A file of an export is not as its format has it: `what` says where and how, in a line.

    What helps depends on who made the file.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; export it again")
        self.what = what

    @property
    def of_others(self) -> str:
        """The line for a file that somebody else made."""
        return f"{self.what}; download it again, or ask its maker"


class GateError(Exception):
    """A measured quality gate that the plan requires was not met."""

    exit_code = 1
