"""
What is in a parser of a command line.
"""

from __future__ import annotations

import argparse


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands, by name."""
    (found,) = (
        action.choices
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return dict(found)


def arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The arguments that the help of a command shows."""
    return [one for one in parser._actions if one.help != argparse.SUPPRESS]
