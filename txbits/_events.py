"""
Log events that are too frequent for Twisted's formatter.
"""

from __future__ import annotations

from time import time
from typing import Any

from twisted.logger import Logger, LogLevel


def log_often(log: Logger, text: str, **fields: Any) -> None:
    """
    Emit an event at level ``info`` whose text is formatted here.

    Twisted's formatter is written in Python. For the two lines of a small upload it
    takes as long as reading the heads of all its requests; :meth:`str.format_map` takes
    a twentieth of that. ``Logger.emit`` sorts the levels, to check this one, and an
    observer would put the system together anew for each line. The event has the same
    fields either way, and ``log_system``.

    :param text: The format of the text. It can use names of *fields* only.
    """
    message = text.format_map(fields)
    if "{" in message or "}" in message:
        message = message.replace("{", "{{").replace("}", "}}")
    namespace = log.namespace
    fields["log_logger"] = log
    fields["log_level"] = LogLevel.info
    fields["log_namespace"] = namespace
    fields["log_source"] = log.source
    fields["log_format"] = message
    fields["log_time"] = time()
    fields["log_system"] = f"{namespace}#info"
    log.observer(fields)
