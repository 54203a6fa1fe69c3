"""
The commands of ``txbits``, one module each.
"""

from txbits.client.commands import (
    cancel,
    check,
    completion,
    download,
    link,
    ping,
    status,
    token,
    upload,
)
from txbits.client.commands._command import Command

#: In the order of the help.
COMMANDS: tuple[Command, ...] = (
    upload.COMMAND,
    status.COMMAND,
    cancel.COMMAND,
    download.COMMAND,
    ping.COMMAND,
    check.COMMAND,
    token.COMMAND,
    link.COMMAND,
    completion.COMMAND,
)

__all__ = ["COMMANDS", "Command"]
