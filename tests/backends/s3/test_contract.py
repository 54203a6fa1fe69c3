"""
The S3 backend: the contract, against a real S3 server.
"""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.backends.s3.support import OnS3
from txbits.interfaces import (
    IAddressable,
    IAnswerable,
    IReadable,
    IReplyAddressable,
)
from txbits.testing import BackendContract
from txbits.testing.backend import contract


class S3Tests(OnS3, BackendContract, TestCase):
    """The default settings, but for the shortest parts."""

    @contract
    async def test_a_session_is_shown_on_one_line(self):
        session = await self.new(await self.started(), ("logs", "a.txt"))
        await self.append(session, 10, b"0123")
        name = str(session.session_id).upper()
        self.assertEqual(
            repr(session), f"<S3Session {name} of 'logs/a.txt': 4 of 10 bytes>"
        )


class NotifyingTests(OnS3, BackendContract, TestCase):
    """The same, where a server application is asked about each upload."""

    abilities = OnS3.abilities | {
        IAddressable,
        IAnswerable,
        IReadable,
        IReplyAddressable,
    }
    notifies = True
