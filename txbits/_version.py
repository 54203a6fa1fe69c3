"""
What is running, for ``--version`` and the log.
"""

from __future__ import annotations

from importlib.metadata import version

import twisted


def versions() -> str:
    """Tell the versions of txbits and of Twisted, such as in a report of a problem."""
    return f"txbits {version('txbits')} (Twisted {twisted.__version__})"
