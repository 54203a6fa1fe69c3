"""
A single packet, with retries.
"""

from __future__ import annotations

import io
import random
from typing import Any

from twisted.internet.task import deferLater

from txbits.client._exchange import IExchange
from txbits.client._requests import ExchangeError, NoAnswer
from txbits.client._retry import Backoff
from txbits.client.events import UploadFailed
from txbits.client.source import ObjectSource
from txbits.protocol.codec import NotAnAck, RemoteProtocolError
from txbits.protocol.packets import Ack, CancelSession, ClientPacket
from txbits.protocol.reactions import describe, describe_stranger, is_transient


async def ask(
    reactor: Any,
    exchange: IExchange,
    packet: ClientPacket,
    retry_for: float,
    *,
    good: int | None = None,
) -> Ack[str]:
    """
    Send a packet that has no body.

    :param exchange: Carries it; it is closed at the end.
    :param retry_for: How many seconds to retry.
    :param good: An HRESULT that counts as success.
    :raises UploadFailed: If the server refuses it, or cannot be reached.
    """
    backoff = Backoff(reactor, random.random, retry_for)
    nothing = ObjectSource(io.BytesIO())
    # A session ID comes from a BITS server.
    was_there = isinstance(packet, CancelSession)
    try:
        while True:
            try:
                ack = await exchange.send(packet, nothing, None, lambda _: None, None)
            except NoAnswer as error:
                failed = UploadFailed(str(error), transient=True)
                retry_after = None
            except NotAnAck as error:
                words = describe_stranger(
                    str(error), error.location, was_there=was_there
                )
                failed = UploadFailed(words, status=error.status, transient=was_there)
                retry_after = None
            except (ExchangeError, RemoteProtocolError) as error:
                raise UploadFailed(str(error), transient=False) from error
            else:
                if ack.success or (good is not None and ack.hresult == good):
                    return ack
                failed = UploadFailed(
                    describe(ack),
                    status=ack.status,
                    hresult=ack.hresult,
                    transient=is_transient(ack.status),
                )
                retry_after = ack.retry_after
            seconds = backoff.pause(retry_after) if failed.transient else None
            if seconds is None:
                raise failed
            await deferLater(reactor, seconds)
    finally:
        await exchange.close()
