"""The two ways a command ends badly, each with its exit code.

Library code raises them; only the command line turns them into one line on stderr.
"""

from __future__ import annotations


class InputError(Exception):
    """Bad input or usage. The message is one line that names the file or tensor and the fix."""

    exit_code = 2


class GateError(Exception):
    """A measured quality gate that the plan requires was not met."""

    exit_code = 1
