"""
``python -m txbits`` is the command ``txbits``, and so is what pip installs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from txbits._interrupts import Interrupts


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """
    Be the command ``txbits``, and take Ctrl-C for what it is while it still loads.

    :param argv: The arguments; those of the process if ``None``.
    :raises SystemExit: Always, with the exit status.
    """
    interrupts = Interrupts()
    interrupts.install()
    try:
        # It takes some hundred milliseconds.
        from txbits.client.cli import main as run

        run(argv, interrupts)
    finally:
        interrupts.finish()


if __name__ == "__main__":
    main()
