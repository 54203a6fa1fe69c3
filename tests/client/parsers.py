"""
What is in a parser of a command line.
"""

from __future__ import annotations

import argparse


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands by name, and of their actions, as ``one two``."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, one in action.choices.items():
                found[name] = one
                below = commands(one)
                found |= {f"{name} {each}": below[each] for each in below}
    return found


def arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The arguments that the help of a command shows."""
    return [one for one in parser._actions if one.help != argparse.SUPPRESS]
