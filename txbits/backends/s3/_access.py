"""
As whom, and where, S3 is asked: credentials, the URL of the bucket, signatures.

All of it is botocore's: its chain of credentials, its rules for endpoints and
addressing, its signatures. Whatever of that can take long (files, processes, the
metadata service of a machine) happens in a thread; signing is arithmetic, and does not.

A signature says what the body is. Over TLS nobody can change the body on its way, and a
checksum says whether it arrived whole, so it is not hashed a second time
(``UNSIGNED-PAYLOAD``, as botocore does). Over plain HTTP its SHA-256 is signed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import botocore.session
from attrs import define, field
from botocore.auth import SIGV4_TIMESTAMP, S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import BotoCoreError, NoRegionError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txbits.backends._work import InThread, Joint
from txbits.backends.s3._settings import S3Settings
from txbits.errors import BackendError

_log = Logger()

UNSIGNED = "UNSIGNED-PAYLOAD"

#: Seconds between attempts to refresh credentials that are still good.
_REFRESH_INTERVAL = 60.0


class _Signer(S3SigV4Auth):  # type: ignore[misc]
    """botocore's signature, by a clock and of a payload's hash that it is given."""

    def __init__(self, credentials: Any, service: str, region: str, now: float) -> None:
        super().__init__(credentials, service, region)
        self._now = now

    def payload(self, request: Any) -> Any:
        return request.context["payload"]

    def add_auth(self, request: Any) -> None:
        # As the original, which asks the machine for the time.
        now = datetime.fromtimestamp(self._now, UTC)
        request.context["timestamp"] = now.strftime(SIGV4_TIMESTAMP)
        self._modify_request_before_signing(request)
        canonical = self.canonical_request(request)
        to_sign = self.string_to_sign(request, canonical)
        self._inject_signature_to_request(request, self.signature(to_sign, request))


@define(eq=False)
class Access:
    """
    Where the bucket is, and credentials for it.

    :ivar base: The bucket's URL, without a slash at the end.
    :ivar model: botocore's model of S3, by which answers are read.
    :param clock: Tells the time; signatures have it corrected by :attr:`skew`.
    :ivar skew: Seconds that the store's clock is ahead of ours, once it has complained.
    """

    base: str
    region: str
    service: str
    model: Any
    _credentials: Any
    _clock: IReactorTime
    _in_thread: InThread
    skew: float = field(default=0.0, init=False)
    _frozen: Any = field(default=None, init=False)
    _refreshing: Joint | None = field(default=None, init=False)
    _refreshed_at: float = field(default=float("-inf"), init=False)

    @property
    def is_safe(self) -> bool:
        """Whether nobody can change a body on its way."""
        return self.base.startswith("https:")

    def now(self) -> float:
        """Tell the time by the store's clock, as far as that is known."""
        return self._clock.seconds() + self.skew

    async def ready(self) -> None:
        """
        Wait until there are credentials that are good for now.

        :raises BackendError: If there are none.
        """
        if self._frozen is None or self._is_due():
            if self._refreshing is None:
                self._refreshing = Joint()
                joined = self._refreshing.join()
                Deferred.fromCoroutine(self._refresh()).addBoth(self._refreshed)
                await joined
            else:
                await self._refreshing.join()

    def _is_due(self) -> bool:
        return (
            isinstance(self._credentials, RefreshableCredentials)
            and self._clock.seconds() - self._refreshed_at >= _REFRESH_INTERVAL
            and bool(self._credentials.refresh_needed())
        )

    async def _refresh(self) -> None:
        try:
            # This waits for the source only where its answer is needed; else it goes
            # on with what there is, and logs that.
            self._frozen = await self._in_thread(
                self._credentials.get_frozen_credentials
            )
        except (BotoCoreError, OSError, RuntimeError) as error:
            raise BackendError(f"no credentials for S3: {error}") from error
        self._refreshed_at = self._clock.seconds()

    def _refreshed(self, outcome: Any) -> None:
        refreshing, self._refreshing = self._refreshing, None
        if refreshing is not None:
            refreshing.end(outcome)

    def forget(self) -> None:
        """Ask for credentials anew before the next request: these have expired."""
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
        request = AWSRequest(method=method, url=url, headers=dict(headers))
        request.context["payload"] = payload
        _Signer(self._frozen, self.service, self.region, self.now()).add_auth(request)
        return dict(request.headers.items())


def resolved(settings: S3Settings, clock: IReactorTime, in_thread: InThread) -> Access:
    """
    Find out where the bucket is, and as whom to ask. Blocks.

    :raises BackendError: If there is no telling; the text is one line.
    """
    try:
        session = botocore.session.Session(profile=settings.profile)
        credentials = session.get_credentials()
        if credentials is None:
            raise BackendError(
                "no credentials for S3 were found: set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or give profile=NAME, or a role"
            )
        client = session.create_client(
            "s3",
            region_name=settings.region,
            endpoint_url=settings.endpoint,
            config=Config(
                signature_version="s3v4", s3={"addressing_style": settings.addressing}
            ),
        )
        # A presigned URL is the public way to see what botocore makes of it all.
        url = urlsplit(
            client.generate_presigned_url(
                "get_object", Params={"Bucket": settings.bucket, "Key": "k"}
            )
        )
    except NoRegionError as error:
        raise BackendError(
            "no region for S3 is known: give region=NAME, or set AWS_REGION"
        ) from error
    except (BotoCoreError, OSError, ValueError) as error:
        raise BackendError(f"S3 cannot be set up: {error}") from error
    scope = parse_qs(url.query)["X-Amz-Credential"][0].split("/")
    return Access(
        f"{url.scheme}://{url.netloc}{url.path.removesuffix('/k')}",
        scope[-3],
        scope[-2],
        client.meta.service_model,
        credentials,
        clock,
        in_thread,
    )


def seconds_of(moment: datetime) -> float:
    """Tell a time as seconds since the epoch."""
    return moment.timestamp() if moment.tzinfo else time.mktime(moment.timetuple())
