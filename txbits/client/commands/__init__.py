"""
The commands of ``txbits``, one module each.
"""

from txbits.client.commands import upload
from txbits.client.commands._command import Command

#: In the order of the help.
COMMANDS: tuple[Command, ...] = (upload.COMMAND,)

__all__ = ["COMMANDS", "Command"]
