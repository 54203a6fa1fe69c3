"""
What the tests of authentication share: threads that a test lets run, and credentials.
"""

from __future__ import annotations

from base64 import b64encode

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txbits.interfaces import Credentials


@define(eq=False)
class HeldThreads:
    """
    Threads that wait for the test.

    :ivar jobs: What they have begun, but not ended.
    :ivar count: How many calls they have begun.
    """

    jobs: list = field(factory=list)
    count: int = 0

    def __call__(self, function, /, *args):
        self.count += 1
        done = Deferred()
        self.jobs.append((done, function, args))
        return done

    def end_one(self):
        """Let the first one do its work."""
        done, function, args = self.jobs.pop(0)
        try:
            outcome = function(*args)
        except Exception:  # noqa: BLE001 - it is passed on
            outcome = Failure()
        done.callback(outcome)

    def end_all(self):
        """Let all of them do their work, and all that begins then."""
        while self.jobs:
            self.end_one()


def basic(name, password, **more):
    """Credentials with a Basic Authorization header; str is sent as UTF-8."""
    name, password = (
        one.encode() if isinstance(one, str) else one for one in (name, password)
    )
    return authorized(b"Basic " + b64encode(name + b":" + password), **more)


def authorized(value, **more):
    """Credentials with an Authorization header."""
    return Credentials({b"authorization": [value]}, **more)
