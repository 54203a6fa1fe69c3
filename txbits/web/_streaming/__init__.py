"""
A site whose upload requests stream, and the only folder that leans on twisted.web.

``twisted.web`` collects a whole body in a temporary file before any resource sees its
request. Here the request of a BITS packet is handed to its resource as soon as the
head is complete, and the body flows to whoever asks for it, chunk by chunk, with
back-pressure. All other requests of the site are treated as ever.

What is leaned on, and pinned by tests on the lowest and the latest Twisted supported:

- ``HTTPChannel.lineReceived``, ``allHeadersReceived``, ``allContentReceived`` and
  ``requestDone`` as the stations of a request, with the request's line in
  ``_command``, ``_path`` and ``_version`` between the first and the third;
- ``HTTPChannel._send100Continue`` and ``_networkProducer``;
- ``HTTPChannel._handlingRequest`` and raw mode keeping what comes behind a request in
  ``_dataBuffer``, which it stops reading for when that is long
  (``_optimisticEagerReadSize``);
- ``LineReceiver.paused`` keeping it from taking more lines out of ``_buffer``, and
  ``HTTPChannel.requests`` being empty when the next line is the first of a request;
- ``HTTPChannel.checkPersistence`` deciding whether a connection is kept;
- a TCP transport telling a protocol that provides ``IHalfCloseableProtocol`` of the end
  of one side, and only closing the connection by itself for any other;
- ``Request.requestReceived`` setting the request up and calling ``process``;
- ``HTTPChannel.registerProducer``, ``pauseProducing`` and ``resumeProducing``, with
  ``_waitingForTransport`` between the last two, and ``dataBuffer``, ``offset`` and
  ``_tempDataLen`` of a connection as what is still to be sent;
- what ``Request.__init__`` sets, ``Request.finish`` ending in ``_cleanup``, and
  ``Site.getResourceFor``, which are done here with less.

Time-outs are deadlines, one number a connection, looked at every few seconds by the
site: a delayed call for each of thousands of idle connections would cost more memory
than the rest of the connection.
"""

from __future__ import annotations

from txbits.web._streaming.bodies import DRAIN_LIMIT, READ_SIZE, body_of
from txbits.web._streaming.limits import Limits
from txbits.web._streaming.request import (
    StreamingRequest,
    destination_of,
    directory_of,
    head_of,
    headers_of,
    keeps_alive,
)
from txbits.web._streaming.site import BITSSite

__all__ = [
    "DRAIN_LIMIT",
    "READ_SIZE",
    "BITSSite",
    "Limits",
    "StreamingRequest",
    "body_of",
    "destination_of",
    "directory_of",
    "head_of",
    "headers_of",
    "keeps_alive",
]
