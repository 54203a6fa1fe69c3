"""
A site whose upload requests stream. Only this package depends on the internals of
twisted.web.

``twisted.web`` collects a whole body in a temporary file before any resource sees its
request. Here a resource gets the request of a BITS packet as soon as the head is
complete, and reads the body chunk by chunk, with back-pressure. All other requests of
the site are handled as by ``twisted.web``.

These are the internals; tests check them on the lowest and the latest Twisted that is
supported:

- ``HTTPChannel.lineReceived``, ``allHeadersReceived``, ``allContentReceived`` and
  ``requestDone`` as the stages of a request, with the request's line in
  ``_command``, ``_path`` and ``_version`` between the first and the third;
- ``_IdentityTransferDecoder`` in ``_transferDecoder``, which hands on each piece of a
  body and what follows it;
- ``HTTPChannel._send100Continue`` and ``_networkProducer``;
- ``HTTPChannel._handlingRequest`` and raw mode keeping what follows a request in
  ``_dataBuffer``, and stopping to read when that is long
  (``_optimisticEagerReadSize``);
- ``LineReceiver.paused`` leaving further lines in ``_buffer``, and
  ``HTTPChannel.requests`` being empty when the next line is the first of a request;
- ``HTTPChannel.checkPersistence`` deciding whether a connection is kept;
- a TCP transport reporting the end of one side to a protocol that provides
  ``IHalfCloseableProtocol``, and closing the connection for any other;
- ``Request.requestReceived`` setting the request up and calling ``process``;
- ``HTTPChannel.registerProducer``, ``pauseProducing`` and ``resumeProducing``, with
  ``_waitingForTransport`` between the last two, and ``dataBuffer``, ``offset`` and
  ``_tempDataLen`` of a connection as what is still to be sent;
- what ``Request.__init__`` sets, ``Request.finish`` ending in ``_cleanup``, and
  ``Site.getResourceFor``, which are replaced here by faster code.

A time-out is a deadline, one number for each connection, which the site checks every
few seconds. A delayed call for each of thousands of idle connections would need more
memory than the rest of the connection.
"""

from __future__ import annotations

from txbits.web._streaming.bodies import DRAIN_LIMIT, READ_SIZE, Taken, body_of
from txbits.web._streaming.channel import MAX_HEAD, StreamingChannel
from txbits.web._streaming.limits import Limits
from txbits.web._streaming.request import (
    TOLD_LOGINS,
    StreamingRequest,
    destination_of,
    directory_of,
    head_of,
    headers_of,
    invite_body,
    keeps_alive,
    memory_of,
)
from txbits.web._streaming.site import BITSSite
from txbits.web._streaming.taking import has_nothing_to_send, send_now, send_some

__all__ = [
    "DRAIN_LIMIT",
    "MAX_HEAD",
    "READ_SIZE",
    "TOLD_LOGINS",
    "BITSSite",
    "Limits",
    "StreamingChannel",
    "StreamingRequest",
    "Taken",
    "body_of",
    "destination_of",
    "directory_of",
    "has_nothing_to_send",
    "head_of",
    "headers_of",
    "invite_body",
    "keeps_alive",
    "memory_of",
    "send_now",
    "send_some",
]
