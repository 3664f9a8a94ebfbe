"""Structured logs: with `--log-json`, what commands do as JSON lines on stderr.

Events are log records of level INFO whose message is a word or two and whose `extra` has the facts.
Results for people stay on stdout.
"""

from __future__ import annotations

import logging
import sys

from edgeproof.errors import InputError

ROOTS = ("edgeproof", "export", "runtimes")


def log_as_json() -> None:
    """From now on, write the records of this program as JSON lines to stderr.

    Raises:
        InputError: the library for it is missing.
    """
    try:
        from pythonjsonlogger.json import JsonFormatter
    except ModuleNotFoundError:
        raise InputError("--log-json needs python-json-logger; pip install it") from None
    handler = logging.StreamHandler(sys.stderr)
    fields = "%(levelname)s %(name)s %(message)s"
    names = {"levelname": "level", "name": "logger", "message": "event"}
    handler.setFormatter(JsonFormatter(fields, rename_fields=names, timestamp="time"))
    for root in ROOTS:
        logger = logging.getLogger(root)
        logger.handlers[:] = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
