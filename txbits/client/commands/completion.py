"""
``txbits completion SHELL``.
"""

from __future__ import annotations

import argparse

from txbits.client._completion import SHELLS
from txbits.client._display import write
from txbits.client.commands._command import Command, Context, Status


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "shell", metavar="SHELL", choices=sorted(SHELLS), help="bash or zsh"
    )


async def _perform(context: Context, options: argparse.Namespace) -> Status:
    # It lists this command, too.
    from txbits.client.cli import build_parser

    write(context.out, SHELLS[options.shell](build_parser()))
    return Status.DONE


COMMAND = Command(
    name="completion",
    help="print what makes a shell complete this command",
    description="Print what makes a shell complete the words of this command. For "
    'bash: eval "$(txbits completion bash)" in ~/.bashrc. For zsh: write it to a file '
    "_txbits in a folder of $fpath.",
    arguments=_arguments,
    perform=_perform,
    statuses=(),
)
