"""
The commands of ``txbits``, one module each.
"""

from txbits.client.commands import check, completion, download, upload
from txbits.client.commands._command import Command

#: In the order of the help.
COMMANDS: tuple[Command, ...] = (
    upload.COMMAND,
    download.COMMAND,
    check.COMMAND,
    completion.COMMAND,
)

__all__ = ["COMMANDS", "Command"]
