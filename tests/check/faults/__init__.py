"""
One fault of a server for each check: what makes that check fail, and no other.

A fault is what the scripted server is made with. Those that could break several checks
at once are narrowed down, by the offsets and names that a check uses, to one. There is
a module for each group of checks.
"""

from __future__ import annotations

from tests.check.faults import (
    acks,
    creation,
    endings,
    forms,
    fragments,
    publishing,
    ranges,
)
from tests.check.faults._registry import FAULTS

__all__ = [
    "FAULTS",
    "acks",
    "creation",
    "endings",
    "forms",
    "fragments",
    "publishing",
    "ranges",
]
