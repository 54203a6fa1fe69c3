"""
Users, permissions and sessions against a model: whatever packets and reads they send in
whatever order, nobody changes, reads, cancels or learns of what is not theirs.

The model, ``Theirs``, is short: sessions have an owner, files a content. Permission
is what the documentation says, written once more in ``is_permitted``. To learn nothing
of a session is to be answered as if its id were nobody's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import define
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.web.support import (
    UNKNOWN_ID,
    Response,
    WebCase,
    fragment,
    packet,
    request,
)
from tests.web.test_gate import ByName, told
from txbits.access.permissions import Permission, Permissions
from txbits.interfaces import Answer, CompleteUpload, INotifier, IReply
from txbits.protocol.codec import parse_guid
from txbits.sessions import Settings
from txbits.web import Gate
from txbits.web.replies import reply_url

USERS = ("alice", "bob", "carol", None)
GROUPS = {"desk": ("alice", "bob")}
FOLDERS = ("alice", "bob", "all")
PATHS = [(folder, name) for folder in FOLDERS for name in ("f", "g")]
TOTAL = 4

#: What lets something happen, after the permissions that restrict it.
OPEN = Permission(["*", "anonymous"], "/", ["upload", "overwrite", "download"])

_permissions = st.lists(
    st.builds(
        Permission,
        st.lists(
            st.sampled_from(["alice", "bob", "@desk", "*", "anonymous"]),
            min_size=1,
            max_size=2,
        ),
        st.sampled_from(["/", "/", "/{user}", "/alice", "/all"]),
        st.sampled_from(
            [
                [],
                ["upload"],
                ["download"],
                ["upload", "download"],
                ["upload", "overwrite", "download"],
            ]
        ),
    ),
    max_size=3,
).flatmap(lambda some: st.sampled_from([some, [*some, OPEN], [*some, OPEN]]))
_paths = st.sampled_from(PATHS)
_users = st.sampled_from(USERS)
_number = st.integers(0, 5)


def is_permitted(
    permissions: Sequence[Permission],
    user: str | None,
    path: tuple[str, ...],
    action: str,
) -> bool:
    """What the documentation says: the first that names and contains decides."""
    for one in permissions:
        if user is None:
            names, folder = {"anonymous"}, one.path
            if "{user}" in folder:
                continue
        else:
            groups = {f"@{name}" for name, who in GROUPS.items() if user in who}
            names, folder = {user, "*"} | groups, one.path.replace("{user}", user)
        if names & set(one.users) and folder in ("/", f"/{path[0]}"):
            return action in one.may
    return False


@implementer(INotifier)
class Application:
    """Accepts every upload, and replies with its owner's name and its destination."""

    needs: frozenset[Any] = frozenset()

    def notify(self, upload: CompleteUpload, reply: IReply) -> Deferred[Answer]:
        return Deferred.fromCoroutine(self._answer(upload, reply))

    async def _answer(self, upload: CompleteUpload, reply: IReply) -> Answer:
        writer = await reply.open()
        await writer.write("/".join(upload.session.destination).encode())
        await writer.close()
        return Answer(publishes=True)


@define(eq=False)
class Theirs:
    """
    A session.

    :ivar owner: Whose it is; ``None`` if it is anonymous.
    :ivar overwrites: Whether it may replace a file.
    :ivar data: What it uploads.
    :ivar held: How many bytes are acknowledged.
    :ivar is_over: Whether it was closed or cancelled.
    """

    id: bytes
    owner: str | None
    path: tuple[str, ...]
    overwrites: bool
    data: bytes
    held: int = 0
    is_over: bool = False


class AccessMachine(RuleBasedStateMachine):
    """A directory, and four clients, one of whom nobody knows."""

    @initialize(permissions=_permissions, only_create=st.booleans())
    def begin(self, permissions: list[Permission], only_create: bool) -> None:
        self.case = WebCase("create")
        self.case.notifier = Application()
        self.case.setUp()
        self.only_create = only_create
        self.permissions = permissions
        self.case.serve(
            Settings(
                allow_overwrites=True,
                allow_downloads=True,
                create_directories=True,
                session_limit=0,
            ),
            authenticators=[ByName()],
            policy=Permissions(permissions, GROUPS),
            session_credentials="create" if only_create else "every-packet",
        )
        self.sessions: list[Theirs] = []
        self.files: dict[tuple[str, ...], bytes] = {}

    def teardown(self) -> None:
        if hasattr(self, "case"):
            self.case.doCleanups()

    # What the clients send

    def send(self, data: bytes, user: str | None) -> Response:
        return self.case.ask(data if user is None else told(data, user))

    def chosen(self, number: int) -> Theirs | None:
        """One of the sessions that there have been."""
        return self.sessions[number % len(self.sessions)] if self.sessions else None

    def packet(self, kind: bytes, session: Theirs, id: bytes, path: Any) -> bytes:
        target = b"/" + "/".join(path).encode()
        if kind == b"Fragment":
            first = min(session.held, TOTAL - 2)
            body = session.data[first : first + 2]
            return fragment(id, first, body, TOTAL, target=target)
        return packet(kind, id, target=target)

    # The rules

    @rule(permissions=_permissions)
    def permissions_change(self, permissions: list[Permission]) -> None:
        gate, self.permissions = self.case.resource.gate, permissions
        self.case.resource.gate = Gate(
            gate.authenticators,
            Permissions(permissions, GROUPS),
            gate.session_credentials,
        )

    @rule(user=_users, path=_paths)
    def create(self, user: str | None, path: tuple[str, ...]) -> None:
        before = self.stored()
        target = b"/" + "/".join(path).encode()
        ack = self.send(packet(b"Create-Session", target=target), user)
        overwrites = self.may(user, path, "overwrite")
        if not self.may(user, path, "upload"):
            assert ack.status == (401 if user is None else 403), ack
        elif path in self.files and not overwrites:
            assert ack.status == 403, ack
        else:
            assert ack.status == 200, ack
            number = len(self.sessions)
            session_id = str(ack["BITS-Session-Id"]).encode()
            self.sessions.append(
                Theirs(session_id, user, path, overwrites, b"%04d" % number)
            )
            return
        assert self.stored() == before

    @rule(number=_number)
    def all_fragments(self, number: int) -> None:
        for _ in range(TOTAL // 2):
            self.act(b"Fragment", number, None, True, None)

    @rule(
        kind=st.sampled_from(
            [b"Fragment", b"Fragment", b"Close-Session", b"Cancel-Session"]
        ),
        number=_number,
        user=_users,
        is_owner=st.sampled_from([True, True, False]),
        path=st.sampled_from([None, None, None, *PATHS]),
    )
    def act(
        self,
        kind: bytes,
        number: int,
        user: str | None,
        is_owner: bool,
        path: tuple[str, ...] | None,
    ) -> None:
        session = self.chosen(number)
        if session is None:
            return
        if is_owner:
            user = session.owner
        path = session.path if path is None else path
        acting = user
        if self.only_create and user is None and not session.is_over:
            # Who knows the id acts for the owner.
            acting = session.owner if path == session.path else None
        before = self.stored()
        ack = self.send(self.packet(kind, session, session.id, path), user)
        if acting == session.owner and path == session.path:
            self.acts_for_owner(kind, session, acting, ack, before)
            return
        assert self.stored() == before
        nobodys = self.send(self.packet(kind, session, UNKNOWN_ID, path), user)
        self.assert_alike(ack, nobodys)
        assert ack.status != 200, ack

    def acts_for_owner(
        self, kind: bytes, session: Theirs, acting: Any, ack: Response, before: Any
    ) -> None:
        if not self.may(acting, session.path, "upload") and not (
            # The Close of nobody: its Ack may have been lost.
            self.only_create and session.is_over
        ):
            assert ack.status == (401 if acting is None else 403), ack
            assert self.stored() == before
            return
        if session.is_over:
            assert self.stored() == before
            return
        if kind == b"Fragment":
            assert ack.status == 200, ack
            session.held = min(session.held + 2, TOTAL)
        elif kind == b"Cancel-Session":
            assert ack.status == 200, ack
            session.is_over = True
        elif 0 < session.held < TOTAL:
            # Nothing is published, whatever it is answered.
            session.is_over = not any(one == session.id for one, _ in self.stored()[0])
        elif session.path in self.files and not session.overwrites:
            assert ack.status != 200, ack
        else:
            # Without any Fragment, it is an empty file.
            assert ack.status == 200, ack
            session.is_over = True
            self.files[session.path] = session.data[: session.held]

    @rule(user=_users, path=_paths, method=st.sampled_from([b"GET", b"HEAD"]))
    def read(self, user: str | None, path: tuple[str, ...], method: bytes) -> None:
        found = self.get(b"/" + "/".join(path).encode(), user)
        nothing = self.get(b"/" + path[0].encode() + b"/nothing", user)
        if not self.may(user, path, "download"):
            assert found.status == (401 if user is None else 403), found
            assert found.body == b""
            self.assert_alike(found, nothing)
        elif path in self.files:
            assert (found.status, found.body) == (200, self.files[path])
        else:
            assert found.status == 404, found

    @rule(user=_users, number=_number, is_owner=st.booleans())
    def read_reply(self, user: str | None, number: int, is_owner: bool) -> None:
        session = self.chosen(number)
        if session is None:
            return
        if is_owner:
            user = session.owner
        found = self.get_reply(session.id, user)
        if user != session.owner:
            assert found.status in (401, 403, 404), found
            self.assert_alike(found, self.get_reply(UNKNOWN_ID, user))
        elif found.status == 200:
            assert self.may(user, session.path, "upload")
            assert found.body == "/".join(session.path).encode()

    def get(self, target: bytes, user: str | None) -> Response:
        return self.send(request(b"GET", target), user)

    def get_reply(self, session_id: bytes, user: str | None) -> Response:
        return self.get(reply_url("", parse_guid(session_id)).encode(), user)

    # What holds

    def may(self, user: str | None, path: tuple[str, ...], action: str) -> bool:
        return is_permitted(self.permissions, user, path, action)

    def stored(self) -> tuple[list[Any], dict[tuple[str, ...], bytes]]:
        """The sessions and the files of the backend."""
        sessions = [
            (b"{%b}" % str(one.session_id).upper().encode(), one.offset)
            for one in self.case.memory._sessions.values()
        ]
        return sorted(sessions), dict(self.case.memory.files)

    def assert_alike(self, one: Response, other: Response) -> None:
        """Two answers tell the same, but for the id that the client has sent."""
        kept = [
            {
                name: value
                for name, value in answer.headers.items()
                if name not in ("bits-session-id", "date")
            }
            for answer in (one, other)
        ]
        assert (one.status, one.body, kept[0]) == (other.status, other.body, kept[1])

    @invariant()
    def what_is_stored_is_what_owners_have_sent(self) -> None:
        if not hasattr(self, "case"):
            return
        sessions, files = self.stored()
        assert files == self.files
        assert dict(sessions) == {
            one.id: one.held for one in self.sessions if not one.is_over
        }


class ModelTests(SynchronousTestCase):
    """Trial runs no machines of hypothesis by itself."""

    def test_nobody_reaches_what_is_not_theirs(self) -> None:
        run_state_machine_as_test(
            AccessMachine, settings=settings(max_examples=100, stateful_step_count=40)
        )
