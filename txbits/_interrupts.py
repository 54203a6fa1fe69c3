"""
What Ctrl-C does to the command ``txbits``, from its first moment to its last.

This is imported before all else, and imports next to nothing: most of the time that a
short command takes goes into loading what it needs, and a Ctrl-C in that time is not to
end in a traceback.

While nothing is under way Ctrl-C ends the process where it stands, with one line. As
soon as there is something to end in good order it does that, and at once only if it is
told so again, or if the good order takes too long. When the exit status is known it no
longer changes that; it only ends what is still waited for.
"""

from __future__ import annotations

import os
import signal
import sys

# Not of typing, which takes longer to load than what is needed here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: The exit status of what was interrupted, as a shell gives it.
INTERRUPTED = 130

_LINE = b"txbits: interrupted\n"

#: Whatever drew a bar has hidden the cursor.
_SHOW_CURSOR = b"\x1b[?25h\n"


class Interrupts:
    """
    Handles Ctrl-C.

    :param leave: Ends the process at once, with an exit status.
    :param write: Writes bytes to a descriptor, as :func:`os.write` does.
    :ivar interrupt: Ends in good order what is under way; ``None`` if nothing is.
    :ivar status: The exit status, once it is known.
    """

    def __init__(
        self,
        leave: Callable[[int], Any] = os._exit,
        write: Callable[[int, bytes], Any] = os.write,
    ) -> None:
        self._leave = leave
        self._write = write
        self._seen = False
        self.interrupt: Callable[[], Any] | None = None
        self.status: int | None = None

    def install(self) -> None:
        """Begin. A shell has background jobs ignore Ctrl-C, and so it shall stay."""
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self.handle)

    def finish(self) -> None:
        """
        End: the process does, and nothing is left that could hold it up.

        Python would have Ctrl-C kill it while it tidies up, whatever its status.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def handle(self, *_: object) -> None:
        """A signal came."""
        if self.status is not None:
            self._leave(self.status)
        elif self.interrupt is None or self._seen:
            self.leave()
        else:
            self._seen = True
            self.interrupt()

    def leave(self) -> None:
        """End the process at once."""
        # Not through the streams: this may have come in the middle of writing to one.
        if self._seen and os.isatty(1):
            self._say(1, _SHOW_CURSOR)
        self._say(2, _LINE)
        self._leave(INTERRUPTED)

    def _say(self, descriptor: int, data: bytes) -> None:
        try:
            self._write(descriptor, data)
        except OSError:
            # Nobody reads.
            return


def flush() -> None:
    """Have all that was said be written, as the end of a process would."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            # Nobody reads, or it is closed.
            continue
