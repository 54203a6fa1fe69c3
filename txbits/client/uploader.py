"""
Uploads of which only the end matters.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from txbits.client.events import UploadResult
from txbits.client.job import UploadJob


def upload(
    source: Any, url: str, *, reactor: Any, **settings: Any
) -> Deferred[UploadResult]:
    """
    Upload a file to a BITS server.

    :param source: What to upload, see :class:`~txbits.client.job.UploadJob`, which can
        also be paused, resumed and cancelled.
    :param url: Where the file is to appear.
    :param reactor: Makes the connections, and tells the time.
    :param settings: What else an :class:`~txbits.client.job.UploadJob` takes.
    :returns: What :meth:`~txbits.client.job.UploadJob.start` gives.
    """
    return UploadJob(source, url, reactor=reactor, **settings).start()
