"""
Turns results and failures into responses. Only this module writes Acks.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request

from txbits import errors
from txbits._counts import Counts, Refused
from txbits._deferreds import let_go_of_frames
from txbits.protocol import refusals
from txbits.protocol.codec import METHOD, RemoteProtocolError, encode_ack, session_id_of
from txbits.protocol.packets import (
    Ack,
    CancelSession,
    CloseSession,
    CreateSession,
    Fragment,
    Ping,
)
from txbits.protocol.refusals import Refusal
from txbits.sessions import Caller
from txbits.sessions.naming import destination_name, session_name, shown
from txbits.web._streaming import StreamingRequest, directory_of, headers_of

_log = Logger()

_PACKET_TYPES = frozenset(
    kind.packet_type
    for kind in (Ping, CreateSession, Fragment, CloseSession, CancelSession)
)

#: The refusal for each error; a subclass precedes its base class.
_ANSWERS: tuple[tuple[type[Exception], Refusal], ...] = (
    (errors.NoSuchSession, refusals.SESSION_NOT_FOUND),
    (errors.DestinationForbidden, refusals.DESTINATION_FORBIDDEN),
    (errors.DestinationExists, refusals.DESTINATION_EXISTS),
    (errors.DestinationIsDirectory, refusals.DESTINATION_IS_DIRECTORY),
    (errors.ParentMissing, refusals.PARENT_MISSING),
    (errors.OutOfSpace, refusals.OUT_OF_SPACE),
    (errors.StagedDataLost, refusals.STAGED_DATA_LOST),
    (errors.BackendError, refusals.STORAGE_FAULT),
    (errors.CredentialsRejected, refusals.CREDENTIALS_REJECTED),
    (errors.CredentialsUncheckable, refusals.CREDENTIALS_UNCHECKABLE),
    (errors.AccessDenied, refusals.ACCESS_DENIED),
    (errors.UploadsDisabled, refusals.UPLOADS_DISABLED),
    (errors.UploadTooLarge, refusals.UPLOAD_TOO_LARGE),
    (errors.FragmentTooLarge, refusals.FRAGMENT_TOO_LARGE),
    (errors.SessionLimitReached, refusals.SESSION_LIMIT_REACHED),
    (errors.QuotaReached, refusals.QUOTA_REACHED),
    (errors.ServerStopping, refusals.SERVER_STOPPING),
    (errors.WorkerUnavailable, refusals.WORKER_UNAVAILABLE),
    (errors.OutOfStep, refusals.OUT_OF_STEP),
    (errors.TotalLengthChanged, refusals.TOTAL_CHANGED),
    (errors.BodyMismatch, refusals.BAD_RANGE),
    (errors.ApplicationRefused, refusals.APPLICATION_REFUSED),
    (errors.ApplicationUnreachable, refusals.APPLICATION_UNREACHABLE),
    (errors.ApplicationTimedOut, refusals.APPLICATION_TIMED_OUT),
    (errors.BadAnswer, refusals.APPLICATION_ANSWER_UNUSABLE),
)


def refusal_of(error: BaseException) -> Refusal:
    """The row of the failure table for *error*."""
    if isinstance(error, RemoteProtocolError):
        return error.refusal
    for kind, refusal in _ANSWERS:
        if isinstance(error, kind):
            return refusal
    return refusals.INTERNAL_ERROR


def named(
    request: Request, caller: Caller, error: BaseException | None = None
) -> dict[str, Any]:
    """
    The fields that every line of the log about a request has.

    :param error: Why it was refused; it knows the scheme of credentials that are wrong.
    :returns: ``directory``, ``client``, ``user`` and ``scheme``, and ``who`` for the
        last three.
    """
    return {
        "directory": shown(directory_of(request)),
        "client": caller.address,
        "user": caller.user,
        "scheme": caller.scheme or getattr(error, "scheme", None),
        "who": caller.name,
    }


def write_ack(request: Request, ack: Ack, *more: tuple[bytes, bytes]) -> None:
    """
    Answer *request*, unless its connection is gone.

    :param more: Further headers.
    """
    if request._disconnected:
        return
    headers = encode_ack(ack)
    headers += more
    if isinstance(request, StreamingRequest):
        request.answer(ack.status, headers)
        return
    request.setResponseCode(ack.status)
    for name, value in headers:
        request.responseHeaders.addRawHeader(name, value)
    request.finish()


def refuse(
    request: Request,
    error: BaseException,
    destination: tuple[str, ...],
    caller: Caller | None = None,
    packet_type: str = "a request",
    *,
    counts: Counts,
    allowed: bytes = METHOD,
    hides_id: bool = False,
) -> None:
    """
    Answer a packet that failed, and log it.

    :param request: The request to answer.
    :param error: The failure. Its text goes to the log, never to the wire; so does the
        traceback of a programming error. The manager logs a store that fails.
    :param destination: The destination of the packet.
    :param caller: Who sent it; ``None`` if only its connection tells.
    :param packet_type: What kind of packet it was.
    :param counts: Counts it.
    :param allowed: The methods that the URL accepts.
    :param hides_id: Whether the log must not have the id of the session.
    """
    if isinstance(error, errors.BodyIncomplete):
        # Nobody is left to answer. A client that is still there tries again on another
        # connection. The manager has logged it.
        counts.packets[packet_type, 0] += 1
        if not request._disconnected:
            request.loseConnection()
        let_go_of_frames(error)
        return
    refusal = refusal_of(error)
    status, hresult = refusal.answer(getattr(error, "status", 0))
    kind = packet_type if packet_type in _PACKET_TYPES else "other"
    counts.packets[kind, status] += 1
    counts.refusals[refusal.name] += 1
    count_refused_credentials(counts, error)
    session_id = session_id_of(headers_of(request))
    log_format = (
        "refused {packet} from {who} for {directory}/{destination} with {status} "
        "{hresult}: {cause} ({detail})"
    )
    if caller is None:
        caller = Caller(address=getattr(request.getClientAddress(), "host", "-"))
    fields: dict[str, Any] = {
        "outcome": "refused",
        "packet": packet_type,
        **named(request, caller, error),
        "session": None,
        "destination": destination_name(destination),
        "refusal": refusal.name,
        "bytes": getattr(error, "offset", None) or 0,
        "status": status,
        "hresult": f"0x{hresult:08X}",
        "cause": refusal.cause,
        "detail": shown(str(error), hides_ids=hides_id),
    }
    if session_id is not None:
        fields["session"] = session_name(session_id, is_secret=hides_id)
    if refusal is refusals.INTERNAL_ERROR:
        _log.failure(log_format, Failure(error), **fields)
    elif isinstance(error, errors.CredentialsIncomplete):
        # It is the next step of what the client has begun.
        _log.debug(log_format, **fields)
    else:
        _log.info(log_format, **fields)
    if not isinstance(error, errors.CredentialsIncomplete):
        counts.refused.add(
            Refused(
                refusal.name,
                fields["directory"],
                caller.address,
                caller.user and shown(caller.user),
                fields["destination"],
                kind,
                status,
                hresult,
                fields["detail"],
                counts.wall(),
            )
        )
    if refusal is not refusals.INTERNAL_ERROR:
        let_go_of_frames(error)
    ack = Ack(
        status,
        session_id,
        received=getattr(error, "offset", None),
        hresult=hresult,
        context=refusal.context,
        retry_after=getattr(error, "retry_after", None),
    )
    if refusal is refusals.METHOD_NOT_ALLOWED:
        # RFC 9110 15.5.6.
        write_ack(request, ack, (b"Allow", allowed))
    elif isinstance(error, errors.CredentialsRejected):
        write_ack(request, ack, *challenges(error))
    else:
        write_ack(request, ack)


def count_refused_credentials(counts: Counts, error: BaseException) -> None:
    """Count credentials that were refused, if *error* says that they were."""
    if isinstance(error, errors.CredentialsIncomplete):
        result = "incomplete"
    elif isinstance(error, errors.CredentialsRejected):
        result = "rejected"
    elif isinstance(error, errors.CredentialsUncheckable):
        result = "uncheckable"
    else:
        return
    counts.authentications[error.scheme or "none", result] += 1


def count_accepted_credentials(counts: Counts, caller: Caller) -> None:
    """Count credentials that were accepted, if the caller has sent any."""
    if caller.scheme:
        counts.authentications[caller.scheme, "accepted"] += 1


def challenges(
    error: errors.CredentialsRejected,
) -> list[tuple[bytes, bytes]]:
    """The headers that tell a client which credentials are accepted."""
    return [(b"WWW-Authenticate", value) for value in error.challenges]
