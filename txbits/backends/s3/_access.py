"""
Credentials, the URL of the bucket, and signatures.

All of it comes from botocore: its chain of credentials, its rules for endpoints and
addressing, its signatures. Steps that can take long (files, processes, the metadata
service of a machine) run in a thread; signing does not.

A signature covers the body. TLS protects the body on its way, and a checksum says
whether it arrived whole, so over TLS the body is not hashed a second time
(``UNSIGNED-PAYLOAD``, as in botocore). Over plain HTTP its SHA-256 is signed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

import botocore.session
from attrs import define, field
from botocore.auth import (
    SIGV4_TIMESTAMP,
    S3SigV4Auth,
    S3SigV4QueryAuth,
    SigV4Auth,
)
from botocore.awsrequest import AWSRequest, AWSResponse, HeadersDict
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import BotoCoreError, NoRegionError
from botocore.loaders import create_loader
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txbits._deferreds import Shared
from txbits.backends._threads import InThread
from txbits.backends.s3._settings import S3Settings
from txbits.clocks import wall_of
from txbits.errors import BackendError

_log = Logger()

UNSIGNED = "UNSIGNED-PAYLOAD"

_ALGORITHM = "AWS4-HMAC-SHA256"

# The key of a request that botocore makes, which shows the bucket's URL and the scope
# of signatures: Credential=KEY/DATE/REGION/SERVICE/aws4_request.
_KEY = "k"
_SCOPE = re.compile(r"Credential=[^,]*/([^/,]*)/([^/,]*)/aws4_request")

#: Seconds between attempts to refresh credentials that are still good.
_REFRESH_INTERVAL = 60.0

#: Seconds by which a store's clock may differ before it is corrected.
_WANDERS = 60.0

#: Requests wait for new credentials if the present ones expire within these seconds.
_SHORT = 120


def _sign(signer: SigV4Auth, request: AWSRequest) -> str:
    """
    Sign a request that has a timestamp.

    botocore documents ``add_auth()`` alone, which dates a request by the clock of the
    machine. Ours are dated by the store's, so this takes the same steps; a test
    compares the outcomes.
    """
    to_sign = signer.string_to_sign(request, signer.canonical_request(request))
    return str(signer.signature(to_sign, request))


@define(eq=False)
class Access:
    """
    Where the bucket is, and credentials for it.

    :ivar base: The bucket's URL, without a trailing slash.
    :ivar model: botocore's model of S3, for parsing responses.
    :param clock: The steady clock. Its wall clock dates signatures, corrected by
        :attr:`skew`.
    :ivar skew: Seconds that the store's clock is ahead of our wall clock, once it has
        rejected a request for that.
    :ivar ahead: Seconds that the store's clock is ahead of our steady one.
    """

    base: str
    region: str
    service: str
    model: Any
    _credentials: Any
    _clock: IReactorTime
    _in_thread: InThread
    skew: float = field(default=0.0, init=False)
    ahead: float = field(init=False)
    _frozen: Any = field(default=None, init=False)
    _refreshing: Shared[None] = field(factory=Shared, init=False)
    _refreshed_at: float = field(default=float("-inf"), init=False)

    @ahead.default
    def _as_our_wall_clock(self) -> float:
        return wall_of(self._clock)() - self._clock.seconds()

    @property
    def is_safe(self) -> bool:
        """Whether TLS protects bodies on their way."""
        return self.base.startswith("https:")

    def now(self) -> float:
        """Return the time by the store's clock, as far as that is known."""
        return wall_of(self._clock)() + self.skew

    def saw(self, theirs: float) -> None:
        """
        Note the time of the store's clock.

        It has whole seconds, and takes a while to arrive. So only large differences are
        corrected.
        """
        ahead = theirs - self._clock.seconds()
        if abs(ahead - self.ahead) > _WANDERS:
            self.ahead = ahead

    async def ready(self) -> None:
        """
        Wait until there are valid credentials.

        :raises BackendError: If there are none.
        """
        if self._frozen is not None and not self._is_due():
            return
        refreshed = self._refreshing.run(self._refresh)
        if self._frozen is None or self._credentials.refresh_needed(_SHORT):
            await refreshed
        else:
            # The present credentials are valid until the new ones have arrived.
            refreshed.addErrback(self._could_not_refresh)

    def _is_due(self) -> bool:
        return (
            isinstance(self._credentials, RefreshableCredentials)
            and self._clock.seconds() - self._refreshed_at >= _REFRESH_INTERVAL
            and bool(self._credentials.refresh_needed())
        )

    def _could_not_refresh(self, failure: Failure) -> None:
        _log.warn(
            "could not refresh credentials, using the present ones: {why}",
            why=str(failure.value),
        )

    async def _refresh(self) -> None:
        try:
            # If the present credentials are still valid, a failure to refresh them is
            # only logged.
            self._frozen = await self._in_thread(
                self._credentials.get_frozen_credentials
            )
        except (BotoCoreError, OSError, RuntimeError) as error:
            said = " ".join(str(error).split())
            raise BackendError(f"no credentials for S3: {said}") from error
        finally:
            self._refreshed_at = self._clock.seconds()

    def forget(self) -> None:
        """Get new credentials before the next request: these have expired."""
        if isinstance(self._credentials, RefreshableCredentials):
            self._frozen = None

    def signed(
        self, method: str, url: str, headers: Mapping[str, str], payload: str
    ) -> dict[str, str]:
        """
        Sign a request. :meth:`ready` has been waited for.

        :param payload: The hexadecimal SHA-256 of the body, or :data:`UNSIGNED`.
        :returns: All headers that it is to be sent with.
        """
        signer = S3SigV4Auth(self._frozen, self.service, self.region)
        request = self._dated(AWSRequest(method=method, url=url, headers=headers))
        signing = request.headers
        signing["X-Amz-Date"] = request.context["timestamp"]
        signing["X-Amz-Content-SHA256"] = payload
        if self._frozen.token:
            signing["X-Amz-Security-Token"] = self._frozen.token
        names = signer.signed_headers(signer.headers_to_sign(request))
        signature = _sign(signer, request)
        signing["Authorization"] = (
            f"{_ALGORITHM} Credential={signer.scope(request)}, SignedHeaders={names}, "
            f"Signature={signature}"
        )
        return dict(signing.items())

    def presigned(self, method: str, url: str, seconds: int) -> str:
        """
        Sign a URL. :meth:`ready` has been waited for.

        :param seconds: For how long it is valid.
        """
        signer = S3SigV4QueryAuth(self._frozen, self.service, self.region)
        request = self._dated(AWSRequest(method=method, url=url))
        query = {
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": signer.scope(request),
            "X-Amz-Date": request.context["timestamp"],
            "X-Amz-Expires": str(seconds),
            "X-Amz-SignedHeaders": "host",
        }
        if self._frozen.token:
            query["X-Amz-Security-Token"] = self._frozen.token
        request.url = f"{url}?{urlencode(query, quote_via=quote, safe='-_.~')}"
        return f"{request.url}&X-Amz-Signature={_sign(signer, request)}"

    def _dated(self, request: AWSRequest) -> AWSRequest:
        now = datetime.fromtimestamp(self.now(), UTC)
        request.context["timestamp"] = now.strftime(SIGV4_TIMESTAMP)
        return request


def resolved(settings: S3Settings, clock: IReactorTime, in_thread: InThread) -> Access:
    """
    Find the bucket's URL and credentials. Blocks.

    :raises BackendError: If they cannot be found; the text is one line.
    """
    try:
        session = botocore.session.Session(profile=settings.profile)
        session.register_component(
            "data_loader", _loader(session.get_config_variable("data_path"))
        )
        credentials = session.get_credentials()
        if credentials is None:
            raise BackendError(
                "no credentials for S3 were found: set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or give profile=NAME, or a role"
            )
        client = session.create_client(
            "s3",
            # Containers and functions have AWS_REGION, which botocore ignores.
            region_name=settings.region
            or session.get_config_variable("region")
            or os.environ.get("AWS_REGION"),
            endpoint_url=settings.endpoint,
            config=Config(
                signature_version="s3v4", s3={"addressing_style": settings.addressing}
            ),
        )
        url, region, service = _where(client, settings.bucket)
    except NoRegionError as error:
        raise BackendError(
            "no region for S3 is known: set region=NAME, or AWS_REGION"
        ) from error
    except (BotoCoreError, OSError, ValueError) as error:
        said = " ".join(str(error).split())
        raise BackendError(f"S3 cannot be set up: {said}") from error
    return Access(
        url.removesuffix(f"/{_KEY}"),
        region,
        service,
        client.meta.service_model,
        credentials,
        clock,
        in_thread,
    )


@cache
def _loader(paths: str | None) -> Any:
    """
    Make the loader of botocore's model of S3, once for all backends of a process.

    Loading takes 0.1 s and some MiB.

    :param paths: More directories to look in.
    """
    return create_loader(paths)


class _Nothing:
    """The empty body of a response that was not sent."""

    def stream(self) -> Iterator[bytes]:
        return iter(())


def _where(client: Any, bucket: str) -> tuple[str, str, str]:
    """
    Have botocore make a request, without sending it.

    :returns: The URL of the object :data:`_KEY`, and the region and the service of the
        signature.
    """
    seen: list[Any] = []

    def catch(request: Any, **_: Any) -> AWSResponse:
        seen.append(request)
        return AWSResponse(request.url, 200, HeadersDict(), _Nothing())

    client.meta.events.register("before-send.s3", catch)
    client.head_object(Bucket=bucket, Key=_KEY)
    (request,) = seen
    signed = request.headers["Authorization"]
    if isinstance(signed, bytes):
        signed = signed.decode("ascii")
    found = _SCOPE.search(signed)
    if found is None:
        raise ValueError(f"botocore uses an unknown kind of signature: {signed[:60]}")
    return str(request.url), found[1], found[2]


def seconds_of(moment: datetime) -> float:
    """Return a time as seconds since the epoch."""
    return moment.timestamp() if moment.tzinfo else time.mktime(moment.timetuple())
