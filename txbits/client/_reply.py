"""
The reply of a server application, downloaded before the session is closed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any
from uuid import uuid4

from twisted.internet.threads import deferToThreadPool

from txbits._agents import coding_of
from txbits.client._fetch import Body
from txbits.client._files import FILES, Files
from txbits.client._requests import NoAnswer, Requests
from txbits.client._url import same_server
from txbits.client.events import UploadFailed
from txbits.client.settings import ConnectionSettings
from txbits.protocol.reactions import is_transient

#: How many bytes a reply may have, so that a server cannot fill the disk.
LONGEST_REPLY = 2**30


async def fetch_reply(
    reactor: Any,
    url: str,
    server: str,
    settings: ConnectionSettings,
    path: str | os.PathLike[Any],
    files: Files = FILES,
) -> int:
    """
    Download a reply into a file, which appears when it is complete and synced: the
    server deletes the reply when the session is closed.

    :param url: The URL of the reply.
    :param server: The only server that may get the passwords and headers in *settings*.
    :returns: The length of the reply.
    :raises NoAnswer: If the failure may be temporary.
    :raises UploadFailed: If it is permanent.
    :raises OSError: If the file cannot be written.
    """
    if not same_server(url, server):
        settings = settings.for_strangers
    requests = Requests.over_network(reactor, settings)
    name = os.fsdecode(path)
    temporary = f"{name}.{uuid4()}"
    try:
        length = await _download(
            reactor, requests, url, temporary, settings.response_timeout
        )
        # On cancellation the thread continues, and the file may still appear.
        await deferToThreadPool(
            reactor, reactor.getThreadPool(), _place, temporary, name, files
        )
    except OSError as error:
        if error.filename is None:
            # For example, the disk is full.
            error.filename = name
        raise
    finally:
        await requests.close()
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    return length


def _place(temporary: str, name: str, files: Files) -> None:
    descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
    try:
        files.fsync(descriptor)
        os.replace(temporary, name)
        files.sync_folder_of(name, descriptor)
    finally:
        os.close(descriptor)


async def _download(
    reactor: Any, requests: Requests, url: str, path: str, patience: float
) -> int:
    response = await requests.ask(b"GET", url, [], lambda _: None)
    if response.code != 200:
        await requests.discard(response)
        words = f"the reply cannot be downloaded: the server answered {response.code}"
        schemes = requests.offered(response)
        if schemes:
            words += f"; it asks for {' or '.join(schemes)}"
        # A redirect may lead to the login page of a network.
        if is_transient(response.code) or 300 <= response.code < 400:
            raise NoAnswer(words)
        raise UploadFailed(words, status=response.code, transient=False)
    if (coding := coding_of(response)) is not None:
        await requests.discard(response)
        words = f"the reply cannot be downloaded: the server gives it as {coding} only"
        raise UploadFailed(words, status=response.code, transient=False)
    too_long = UploadFailed(
        f"the reply is longer than {LONGEST_REPLY} bytes", transient=False
    )
    if isinstance(response.length, int) and response.length > LONGEST_REPLY:
        await requests.discard(response)
        raise too_long
    with open(path, "xb") as file:

        def take(data: bytes) -> None:
            if file.tell() + len(data) > LONGEST_REPLY:
                raise too_long
            file.write(data)

        body = Body(reactor, patience, take, requests.drop)
        response.deliverBody(body)
        await body.ended
        length = file.tell()
    if isinstance(response.length, int) and length != response.length:
        raise NoAnswer("the reply was cut short")
    return length
