"""
Users, permissions and sessions against a model: packets of all kinds from all users in
any order, with right, wrong and no credentials.

Whatever the order, nobody reads, changes, cancels or learns of what is not theirs: for
everyone but its owner, a session is answered as one that never was, and what a user may
not do changes nothing.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.web.support import Response, fragment, packet, request, responses
from txbits.access.permissions import Permission, Permissions
from txbits.backends.memory import MemoryBackend
from txbits.errors import CredentialsRejected
from txbits.interfaces import Credentials, Grant, IAuthenticator, Identity, Scope
from txbits.sessions import Settings
from txbits.testing.memory import Peer
from txbits.web import BITSResource, BITSSite
from txbits.web._gate import Gate

_DATA = b"hello"
_UNKNOWN = b"{11111111-2222-3333-4444-5555AAAABBBB}"

#: Who sends: users, one whose password is wrong, nobody, and two links.
_SENDERS = ["alice", "bob", "carol", "wrong", "", "link/one", "link/tree"]

_DESTINATIONS = [
    ("alice", "x"),
    ("bob", "x"),
    ("shared", "x"),
    ("drop", "x"),
    ("links", "one"),
    ("links", "tree", "x"),
    ("other",),
]

_SCOPES = {
    "link/one": Scope(("links", "one"), False, Grant(overwrite=False)),
    "link/tree": Scope(
        ("links", "tree"), True, Grant(overwrite=False, max_size=len(_DATA))
    ),
}

#: What an operator may write; the model reads them by itself.
_PERMISSIONS = [
    (["alice"], "/bob", []),
    (["*"], "/{user}", ["upload", "overwrite", "download"]),
    (["@staff"], "/shared", ["upload", "download"]),
    (["*"], "/shared", ["download"]),
    (["anonymous"], "/drop", ["upload"]),
    (["bob"], "/", ["upload"]),
]
_STAFF = ["alice", "carol"]


@implementer(IAuthenticator)
class _Names:
    """Believes every name, except for ``wrong``."""

    scheme = "told"
    strength = 1

    def challenge(self, credentials: Credentials) -> bytes | None:
        return b"Told"

    def authenticate(self, credentials: Credentials) -> Deferred[Identity | None]:
        said = credentials.authorization
        if said is None:
            return succeed(None)
        name = said[1].decode()
        if name == "wrong":
            return fail(CredentialsRejected("the password is wrong"))
        return succeed(Identity(name, "told", scope=_SCOPES.get(name)))


@define
class _Upload:
    """What the model knows of a session."""

    id: bytes
    owner: str
    destination: tuple[str, ...]
    held: int = 0
    state: str = field(default="open")


def _named(upload: _Upload | None) -> tuple[bytes, tuple[str, ...]]:
    """The id and the destination that a packet names."""
    if upload is None:
        return _UNKNOWN, ("other",)
    return upload.id, upload.destination


def _target(destination: tuple[str, ...]) -> bytes:
    return ("/" + "/".join(destination)).encode()


class AccessMachine(RuleBasedStateMachine):
    """A server that everybody sends packets to."""

    @initialize(
        rights=st.lists(st.sampled_from(_PERMISSIONS), unique_by=repr, max_size=6),
        allow_overwrites=st.booleans(),
        by_id=st.booleans(),
    )
    def serve(self, rights: list[Any], allow_overwrites: bool, by_id: bool) -> None:
        self.clock = Clock()
        self.backend = MemoryBackend(self.clock)
        self.allow_overwrites, self.by_id = allow_overwrites, by_id
        self.rights = rights
        self.uploads: list[_Upload] = []
        self.files: dict[tuple[str, ...], bytes] = {}
        self.resource = BITSResource(
            self.backend,
            Settings(
                allow_overwrites=allow_overwrites,
                allow_downloads=True,
                create_directories=True,
            ),
            reactor=self.clock,
            **self.access(),
        )
        self.started(self.resource.manager.start())
        self.site = BITSSite(self.resource, reactor=self.clock)
        self.site.startFactory()

    def access(self) -> dict[str, Any]:
        permissions = [Permission(*one) for one in self.rights]
        return {
            "authenticators": [_Names()],
            "policy": Permissions(permissions, {"staff": _STAFF}),
            "session_credentials": "create" if self.by_id else "every-packet",
        }

    def started(self, deferred: Deferred[Any]) -> None:
        outcome: list[Any] = []
        deferred.addBoth(outcome.append)
        assert outcome == [None], outcome

    # The model

    def may(self, sender: str, destination: tuple[str, ...], action: str) -> bool:
        """What the permissions say, read in the plainest way."""
        scope = _SCOPES.get(sender)
        if scope is not None:
            inside = destination == scope.path or (
                scope.is_tree
                and destination[: len(scope.path)] == scope.path
                and destination != scope.path
            )
            return inside and action == "upload"
        for users, path, allowed in self.rights:
            named = (
                ("anonymous" in users)
                if not sender
                else (
                    sender in users
                    or "*" in users
                    or ("@staff" in users and sender in _STAFF)
                )
            )
            written = [one for one in path.split("/") if one]
            if not sender and "{user}" in written:
                continue
            above = tuple(sender if one == "{user}" else one for one in written)
            if named and destination[: len(above)] == above:
                return action in allowed
        return False

    def refusal(
        self, sender: str, destination: tuple[str, ...], action: str = "upload"
    ) -> int | None:
        """The status for a sender who may not; ``None`` for one who may."""
        if sender == "wrong":
            return 401
        if self.may(sender, destination, action):
            return None
        return 403 if sender else 401

    def acting_in(self, sender: str, upload: _Upload | None) -> tuple[str, int | None]:
        """Who acts in a session, and with which status they are refused."""
        destination = ("other",) if upload is None else upload.destination
        if not sender and self.by_id:
            if upload is None or upload.state != "open":
                return sender, 500
            if upload.owner and not upload.owner.startswith("link/"):
                sender = upload.owner
        refused = self.refusal(sender, destination)
        if refused is None and (upload is None or upload.owner != sender):
            refused = 500
        return sender, refused

    # Packets

    def ask(self, sender: str, data: bytes) -> Response:
        if sender:
            line = b"\r\nAuthorization: Told " + sender.encode() + b"\r\n"
            data = data.replace(b"\r\n", line, 1)
        peer = Peer(self.site)
        peer.send(data)
        (answer,) = responses(peer.received())
        return answer

    @rule(sender=st.sampled_from(_SENDERS), destination=st.sampled_from(_DESTINATIONS))
    def ping(self, sender: str, destination: tuple[str, ...]) -> None:
        answer = self.ask(sender, packet(b"Ping", target=_target(destination)))
        assert answer.status == (self.refusal(sender, destination) or 200)

    @rule(sender=st.sampled_from(_SENDERS), destination=st.sampled_from(_DESTINATIONS))
    def create(self, sender: str, destination: tuple[str, ...]) -> None:
        answer = self.ask(
            sender, packet(b"Create-Session", target=_target(destination))
        )
        refused = self.refusal(sender, destination)
        if (
            refused is None
            and destination in self.files
            and not self.replaces(sender, destination)
        ):
            refused = 403
        assert answer.status == (refused or 200), (answer, refused)
        if refused is None:
            session_id = (answer["BITS-Session-Id"] or "").encode()
            self.uploads.append(_Upload(session_id, sender, destination))

    def replaces(self, sender: str, destination: tuple[str, ...]) -> bool:
        return self.allow_overwrites and self.may(sender, destination, "overwrite")

    def pick(self, number: int) -> _Upload | None:
        return self.uploads[-1 - number % len(self.uploads)] if number < 6 else None

    @precondition(lambda self: self.uploads)
    @rule(
        sender=st.sampled_from(_SENDERS),
        number=st.integers(0, 6),
        length=st.integers(1, 5),
    )
    def send(self, sender: str, number: int, length: int) -> None:
        upload = self.pick(number)
        if upload is None:
            session_id, destination, held = _UNKNOWN, ("other",), 0
        else:
            session_id, destination = upload.id, upload.destination
            held = min(upload.held, len(_DATA) - 1)
        part = _DATA[held : held + length]
        data = fragment(session_id, held, part, len(_DATA), target=_target(destination))
        answer = self.ask(sender, data)
        _, refused = self.acting_in(sender, upload)
        if refused is None and upload is not None and upload.state != "open":
            refused = 500
        assert answer.status == (refused or 200), (answer, refused)
        self.assert_tells_nothing(answer, refused)
        if refused is None and upload is not None:
            upload.held = max(upload.held, held + len(part))
            assert answer["BITS-Received-Content-Range"] == str(upload.held)

    @precondition(lambda self: self.uploads)
    @rule(sender=st.sampled_from(_SENDERS), number=st.integers(0, 6))
    def close(self, sender: str, number: int) -> None:
        upload = self.pick(number)
        session_id, destination = _named(upload)
        data = packet(b"Close-Session", session_id, target=_target(destination))
        answer = self.ask(sender, data)
        who, refused = self.acting_in(sender, upload)
        if (
            upload is not None
            and upload.state == "closed"
            and not sender
            and self.by_id
        ):
            # Who knows the id of a session is told that it was closed.
            refused = None
        elif refused is None and upload is not None and upload.state == "cancelled":
            refused = 500
        elif refused is None and upload is not None and upload.state == "open":
            refused = self.close_for(who, upload)
        assert answer.status == (refused or 200), (answer, refused)
        self.assert_tells_nothing(answer, refused)

    def close_for(self, who: str, upload: _Upload) -> int | None:
        if 0 < upload.held < len(_DATA):
            upload.state = "closed"
            return None
        exists = upload.destination in self.files
        if exists and not (self.replaces(who, upload.destination) and upload.held):
            return 403
        self.files[upload.destination] = _DATA if upload.held else b""
        upload.state = "closed"
        return None

    @precondition(lambda self: self.uploads)
    @rule(sender=st.sampled_from(_SENDERS), number=st.integers(0, 6))
    def cancel(self, sender: str, number: int) -> None:
        upload = self.pick(number)
        session_id, destination = _named(upload)
        data = packet(b"Cancel-Session", session_id, target=_target(destination))
        answer = self.ask(sender, data)
        _, refused = self.acting_in(sender, upload)
        if refused is None and upload is not None and upload.state != "open":
            refused = 500
        assert answer.status == (refused or 200), (answer, refused)
        self.assert_tells_nothing(answer, refused)
        if refused is None and upload is not None:
            upload.state = "cancelled"

    @rule(
        sender=st.sampled_from(_SENDERS),
        destination=st.sampled_from(_DESTINATIONS),
        method=st.sampled_from([b"GET", b"HEAD"]),
    )
    def download(
        self, sender: str, destination: tuple[str, ...], method: bytes
    ) -> None:
        answer = self.ask(sender, request(method, _target(destination)))
        refused = self.refusal(sender, destination, "download")
        if refused is None and destination not in self.files:
            refused = 404
        assert answer.status == (refused or 200), (answer, refused)
        if refused is None and method == b"GET":
            assert answer.body == self.files[destination]

    @rule(rights=st.lists(st.sampled_from(_PERMISSIONS), unique_by=repr, max_size=6))
    def change_permissions(self, rights: list[Any]) -> None:
        """As at SIGHUP."""
        self.rights = rights
        access = self.access()
        gate = Gate(
            access["authenticators"], access["policy"], access["session_credentials"]
        )
        self.resource.gate = gate

    def assert_tells_nothing(self, answer: Response, refused: int | None) -> None:
        """A refusal does not tell whether, or how far, the session is."""
        if refused is not None:
            assert answer["BITS-Received-Content-Range"] is None
        if refused == 500:
            assert answer["BITS-Error-Code"] == "0x8020001F", answer

    @invariant()
    def files_are_those_of_the_model(self) -> None:
        if hasattr(self, "files"):
            files = {
                name: bytes(self.backend.files[name]) for name in self.backend.files
            }
            assert files == self.files, (files, self.files)


class AccessModelTests(SynchronousTestCase):
    """The server agrees with the model."""

    def test_nobody_reads_or_changes_what_is_not_theirs(self) -> None:
        run_state_machine_as_test(
            AccessMachine,
            settings=settings(max_examples=150, stateful_step_count=30, deadline=None),
        )
