"""
``python -m txbits`` is the command ``txbits``, and so is what pip installs.
"""

from __future__ import annotations

from txbits._interrupts import Interrupts

# Not of typing, which would have Ctrl-C wait for as long as all else that is loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """
    Be the command ``txbits``, and take Ctrl-C for what it is while it still loads.

    :param argv: The arguments; those of the process if ``None``.
    :raises SystemExit: Always, with the exit status.
    """
    interrupts = Interrupts()
    interrupts.install()
    try:
        from txbits._loading import Loading

        # It takes some hundred milliseconds.
        with Loading():
            from txbits.client.cli import main as run

        run(argv, interrupts)
    finally:
        interrupts.finish()


if __name__ == "__main__":
    main()
