"""
The commands of ``txbits``, one module each.
"""

from __future__ import annotations

from importlib import import_module

from txbits.client.commands._command import Command

#: In the order of the help.
NAMES = (
    "upload",
    "status",
    "cancel",
    "download",
    "ping",
    "check",
    "token",
    "link",
    "sessions",
    "completion",
)


def load(name: str) -> Command:
    """Import a command. To import all of them takes much of the start of one."""
    command: Command = import_module(f"{__name__}.{name}").COMMAND
    return command


__all__ = ["NAMES", "Command", "load"]
