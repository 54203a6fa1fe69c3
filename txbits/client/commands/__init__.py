"""
The commands of ``txbits``, one module each.
"""

from txbits.client.commands import cancel, ping, status, upload
from txbits.client.commands._command import Command

#: In the order of the help.
COMMANDS: tuple[Command, ...] = (
    upload.COMMAND,
    status.COMMAND,
    cancel.COMMAND,
    ping.COMMAND,
)

__all__ = ["COMMANDS", "Command"]
