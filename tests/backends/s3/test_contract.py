"""
The S3 backend: the contract, against a real S3 server.
"""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.backends.s3.support import OnS3
from txbits.testing import BackendContract


class S3Tests(OnS3, BackendContract, TestCase):
    """The default settings, but for the shortest parts."""


class NotifyingTests(S3Tests):
    """The same, where a server application is asked about each upload."""

    notifies = True
