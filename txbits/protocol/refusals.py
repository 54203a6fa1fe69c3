"""
The failure table: all reasons to refuse a packet, with status, HRESULT and text.

A :class:`Refusal` is a row. Its ``cause`` is the text of the log line; cause and
``remedy`` are columns of the documentation's table of errors. A test compares them.

Windows clients try again after 408, 409 and any 5xx except 501 and 505, but after no
other 4xx. ``BG_E_SESSION_NOT_FOUND`` makes a client upload the whole file again.
"""

from __future__ import annotations

from enum import IntEnum

from attrs import frozen


class HResult(IntEnum):
    """The HRESULTs that txbits answers with (MC-BUP 2.2.1.2, MS-ERREF)."""

    S_OK = 0x00000000
    E_FAIL = 0x80004005
    ERROR_FILE_NOT_FOUND = 0x80070002
    ERROR_PATH_NOT_FOUND = 0x80070003
    E_ACCESSDENIED = 0x80070005
    E_INVALIDARG = 0x80070057
    # MC-BUP prints x80070112 here, which is Win32 error 112 read as hex.
    ERROR_DISK_FULL = 0x80070070
    ERROR_BUSY = 0x800700AA
    BG_E_SESSION_NOT_FOUND = 0x8020001F
    BG_E_TOO_LARGE = 0x80200020
    # MC-BUP 3.3.6 prints it like this; no Win32 error with this number fits.
    APPLICATION_TIMED_OUT = 0x80070112
    ERROR_INTERNET_CANNOT_CONNECT = 0x80072EFD
    # The HTTP status of a server application, 400 and up, is added to it.
    HTTP_STATUS = 0x80190000


#: MC-BUP 2.2.1.2: the error was found by the server.
CONTEXT_SERVER = 0x5

#: MC-BUP 2.2.1.2: the error was found by the server application.
CONTEXT_APPLICATION = 0x7


@frozen
class Refusal:
    """
    A row of the failure table.

    :ivar name: Its name in logs and tests.
    :ivar status: The HTTP status; 0 for that of a server application.
    :ivar hresult: The value of BITS-Error-Code and BITS-Error. The status of a server
        application is added to ``HTTP_STATUS``.
    :ivar cause: What is wrong, for operators.
    :ivar remedy: What to do about it, for operators.
    """

    name: str
    status: int
    hresult: HResult
    cause: str
    remedy: str
    context: int = CONTEXT_SERVER

    def answer(self, application_status: int = 0) -> tuple[int, int]:
        """
        Determine the status and the HRESULT of the answer.

        :param application_status: The HTTP status of the server application, if it has
            answered.
        :returns: The status and the HRESULT.
        """
        if self.status:
            return self.status, self.hresult
        if not 300 <= application_status <= 599:
            # The application has not told what is wrong.
            application_status = 500
        # These two would make a client send smaller or other fragments.
        status = 500 if application_status in (413, 416) else application_status
        return status, self.hresult + application_status


METHOD_NOT_ALLOWED = Refusal(
    "method-not-allowed",
    405,
    HResult.E_INVALIDARG,
    "this URL does not accept that method",
    "Upload with BITS_POST. GET and HEAD require allow-downloads; PUT is not "
    "supported.",
)
NOT_MOUNTED = Refusal(
    "not-mounted",
    404,
    HResult.ERROR_PATH_NOT_FOUND,
    "no virtual directory matches the URL",
    "Compare the URL's path with --mount, or with the mounts of the TOML file.",
)
UPLOADS_DISABLED = Refusal(
    "uploads-disabled",
    501,
    HResult.E_ACCESSDENIED,
    "uploads to this virtual directory are disabled",
    "Set enabled to true for the directory.",
)
UNKNOWN_PACKET_TYPE = Refusal(
    "unknown-packet-type",
    400,
    HResult.E_INVALIDARG,
    "BITS-Packet-Type is missing or unknown",
    "Something other than a BITS client is sending, or a proxy removes headers.",
)
HEADER_TOO_LONG = Refusal(
    "header-too-long",
    400,
    HResult.E_INVALIDARG,
    "the value of a BITS or Content header is longer than 4 KiB",
    "Shorten the file's name; credentials and cookies may be longer.",
)
MALFORMED_HEADER = Refusal(
    "malformed-header",
    400,
    HResult.E_INVALIDARG,
    "a header is malformed or appears twice",
    "Check the client, and any proxy in between.",
)
BAD_SESSION_ID = Refusal(
    "bad-session-id",
    400,
    HResult.E_INVALIDARG,
    "BITS-Session-Id is missing or not a GUID",
    "Check the client, and any proxy in between.",
)
UNEXPECTED_BODY = Refusal(
    "unexpected-body",
    400,
    HResult.E_INVALIDARG,
    "a packet that must not have a body has one",
    "Check the client: only a Fragment has a body.",
)
UNSUPPORTED_ENCODING = Refusal(
    "unsupported-encoding",
    400,
    HResult.E_INVALIDARG,
    "Content-Encoding is not identity",
    "Configure the client to send the file without coding.",
)
BAD_RANGE = Refusal(
    "bad-range",
    400,
    HResult.E_INVALIDARG,
    "Content-Range is missing or malformed, or does not match the length of the body",
    "Check the client, and any proxy in between.",
)
TOTAL_CHANGED = Refusal(
    "total-changed",
    400,
    HResult.E_INVALIDARG,
    "the total length changed within a session",
    "The file changed during the upload. Upload it again.",
)
NO_COMMON_PROTOCOL = Refusal(
    "no-common-protocol",
    400,
    HResult.E_INVALIDARG,
    "BITS-Supported-Protocols contains no protocol that the server supports",
    "Check the client: it must offer {7df0354d-249b-430f-820d-3d2a9bef4931}.",
)
DESTINATION_IS_DIRECTORY = Refusal(
    "destination-is-directory",
    400,
    HResult.E_INVALIDARG,
    "the destination is a directory",
    "Add the file's name to the URL.",
)
LENGTH_REQUIRED = Refusal(
    "length-required",
    411,
    HResult.E_INVALIDARG,
    "a Fragment has neither Content-Length nor chunked coding",
    "Check the client, and any proxy in between.",
)
CREDENTIALS_REJECTED = Refusal(
    "credentials-rejected",
    401,
    HResult.E_ACCESSDENIED,
    "the request has no credentials that are accepted",
    "Compare the client's credentials with the settings that authenticate lists.",
)
CREDENTIALS_UNCHECKABLE = Refusal(
    "credentials-uncheckable",
    503,
    HResult.ERROR_BUSY,
    "the credentials cannot be checked now",
    "The log says why; the client tries again by itself.",
)
ACCESS_DENIED = Refusal(
    "access-denied",
    403,
    HResult.E_ACCESSDENIED,
    "the user has no permission to upload there",
    "Grant the permission to the user, or use other credentials.",
)
DESTINATION_FORBIDDEN = Refusal(
    "destination-forbidden",
    403,
    HResult.E_ACCESSDENIED,
    "the destination's name is not allowed",
    "Use a name without '..', ':', backslashes, device names and reserved names; serve "
    "a mount inside a root as a separate virtual directory.",
)
DESTINATION_EXISTS = Refusal(
    "destination-exists",
    403,
    HResult.E_ACCESSDENIED,
    "the destination exists and overwriting is off",
    "Upload under another name, or set allow-overwrites.",
)
PARENT_MISSING = Refusal(
    "parent-missing",
    404,
    HResult.ERROR_PATH_NOT_FOUND,
    "the destination's parent directory does not exist",
    "Create it, or set create-directories.",
)
SESSION_NOT_FOUND = Refusal(
    "session-not-found",
    500,
    HResult.BG_E_SESSION_NOT_FOUND,
    "the session is unknown, expired or cancelled, or belongs to another user",
    "None needed: the client starts over by itself.",
)
OUT_OF_STEP = Refusal(
    "out-of-step",
    416,
    HResult.S_OK,
    "a fragment starts beyond the bytes that the server has",
    "None needed: the client continues where the server stopped.",
)
UPLOAD_TOO_LARGE = Refusal(
    "upload-too-large",
    500,
    HResult.BG_E_TOO_LARGE,
    "the file is longer than allowed",
    "Raise max-upload-size, make an upload link with a larger --max-size, or cancel "
    "the job.",
)
FRAGMENT_TOO_LARGE = Refusal(
    "fragment-too-large",
    413,
    HResult.BG_E_TOO_LARGE,
    "a fragment is longer than max-fragment-size",
    "None needed: the client sends smaller fragments.",
)
SESSION_LIMIT_REACHED = Refusal(
    "session-limit-reached",
    503,
    HResult.ERROR_BUSY,
    "too many sessions are open",
    "Close or cancel some, or raise session-limit or max-sessions.",
)
QUOTA_REACHED = Refusal(
    "quota-reached",
    503,
    HResult.ERROR_BUSY,
    "too many bytes are staged",
    "Close or cancel some uploads, or raise user-quota or directory-quota.",
)
OUT_OF_SPACE = Refusal(
    "out-of-space",
    500,
    HResult.ERROR_DISK_FULL,
    "there is no space left for the upload",
    "Free some space. The client tries again.",
)
STAGED_DATA_LOST = Refusal(
    "staged-data-lost",
    404,
    HResult.ERROR_FILE_NOT_FOUND,
    "received bytes are missing from the storage",
    "Find out what removes files from the staging area, and upload the file again.",
)
STORAGE_FAULT = Refusal(
    "storage-fault",
    500,
    HResult.E_FAIL,
    "the storage failed",
    "See the server's log. The client tries again.",
)
SERVER_STOPPING = Refusal(
    "server-stopping",
    503,
    HResult.ERROR_BUSY,
    "the server is stopping",
    "None needed: the client tries again.",
)
WORKER_UNAVAILABLE = Refusal(
    "worker-unavailable",
    503,
    HResult.ERROR_BUSY,
    "the worker that has the session does not answer",
    "None needed if the worker was restarted: the client tries again. Otherwise, see "
    "the log.",
)
INTERNAL_ERROR = Refusal(
    "internal-error",
    500,
    HResult.E_FAIL,
    "an unexpected error occurred",
    "Report the traceback in the server's log. The client tries again.",
)

APPLICATION_REFUSED = Refusal(
    "application-refused",
    0,
    HResult.HTTP_STATUS,
    "the server application answered with an error",
    "Contact the operator of the application. After any status but 403 it is asked "
    "again.",
    CONTEXT_APPLICATION,
)
APPLICATION_UNREACHABLE = Refusal(
    "application-unreachable",
    502,
    HResult.ERROR_INTERNET_CANNOT_CONNECT,
    "the server application cannot be reached, or does not speak HTTP",
    "Start the application, or correct notify-url. The client tries again.",
    CONTEXT_APPLICATION,
)
APPLICATION_TIMED_OUT = Refusal(
    "application-timed-out",
    408,
    HResult.APPLICATION_TIMED_OUT,
    "the server application did not answer in time",
    "Make it faster, or raise notify-timeout. The client tries again.",
    CONTEXT_APPLICATION,
)
APPLICATION_ANSWER_UNUSABLE = Refusal(
    "application-answer-unusable",
    400,
    HResult.E_INVALIDARG,
    "the server application's answer cannot be used",
    "Change the application: the URL of a reply must be absolute, and at most 2,200 "
    "characters long.",
    CONTEXT_APPLICATION,
)

#: Every row, in the order in which the documentation lists them.
REFUSALS: tuple[Refusal, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Refusal)
)
