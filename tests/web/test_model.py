"""
The whole server against a model, over raw bytes.

``UploadMachine`` sends packets of several sessions on several connections: right
ones, mangled ones, some cut off in the middle, some in pieces, with restarts of the
server and time-outs in between. A model of a page predicts the status, the HRESULT and
the offset of every answer; it knows the specification and nothing of the code.

Whatever is sent: every answer is HTTP, is an Ack with an HRESULT if it is no success,
nothing is logged as an error, bytes that were acknowledged stay, and after the Ack of
a Cancel nothing is left.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from attrs import define, field
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.web.support import (
    UNKNOWN_ID,
    Response,
    chunked,
    chunked_fragment,
    fragment,
    packet,
    request,
    responses,
)
from txbits.backends.memory import MemoryBackend
from txbits.sessions import Settings
from txbits.testing.memory import Peer
from txbits.web import BITSResource, BITSSite

_SETTINGS = Settings(
    max_upload_size=40, max_fragment_size=16, session_timeout=1000, cleanup_interval=500
)

_TARGETS = {b"/one": ("one",), b"/dir/two": ("dir", "two"), b"/%C3%A4": ("ä",)}

_NOT_FOUND = (500, "0x8020001F")
_INVALID = (400, "0x80070057")
_SUCCESS = (200, None)


@define
class Model:
    """
    What a session should be like.

    :ivar data: The file that the client has.
    :ivar total: The total length that the first fragment gave.
    :ivar held: How many bytes the server should hold.
    :ivar is_tried: Whether a fragment came, be it refused; a restart forgets the
        refused ones.
    :ivar state: ``"open"``, ``"closed"`` (and remembered) or ``"gone"``.
    :ivar progress: When bytes were last stored.
    """

    session_id: bytes
    target: bytes
    data: bytes
    total: int | None = None
    held: int = 0
    is_tried: bool = False
    state: str = "open"
    progress: float = field(default=0.0)

    def refusal(self, first: int, last: int, total: int) -> Any:
        """Why a fragment of this session is refused, if it is."""
        if self.state != "open":
            return _NOT_FOUND
        self.is_tried = True
        if self.total not in (None, total):
            return _INVALID
        if first > self.held:
            return (416, "0x00000000")
        if total > 40:
            return (500, "0x80200020")
        if last - first + 1 > 16:
            return (413, "0x80200020")
        return None

    def take(self, first: int, arrived: int, total: int, now: float) -> None:
        """The first bytes of a fragment that is welcome have arrived."""
        self.total = total
        if first + arrived > self.held:
            self.held = first + arrived
            self.progress = now


class UploadMachine(RuleBasedStateMachine):
    """Sends, and compares with the model."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.backend = MemoryBackend(self.clock)
        self.models: list[Model] = []
        self.files: dict[tuple[str, ...], bytes] = {}
        self.errors: list[Any] = []
        globalLogPublisher.addObserver(self.look_for_errors)

    def look_for_errors(self, event: Any) -> None:
        """Note what is logged as a fault of ours."""
        if event.get("log_level") in (LogLevel.error, LogLevel.critical):
            self.errors.append(event.get("log_failure") or event)

    def teardown(self) -> None:
        globalLogPublisher.removeObserver(self.look_for_errors)

    # What happens to the server

    @initialize()
    def begin(self) -> None:
        """Start it."""
        resource = BITSResource(self.backend, _SETTINGS, reactor=self.clock)
        resource.manager.start()
        self.site = BITSSite(resource, reactor=self.clock)
        self.site.startFactory()
        self.manager = resource.manager
        self.peers = [Peer(self.site) for _ in range(3)]
        self.stalled: list[Peer] = []

    @rule()
    def restart(self) -> None:
        """All connections are lost, and what the process knew."""
        for peer in self.peers + self.stalled:
            peer.lose()
        self.manager.stop()
        self.site.stopFactory()
        self.begin()
        for model in self.models:
            model.is_tried = model.total is not None

    @rule(seconds=st.sampled_from([1, 400, 999, 1001]))
    def wait(self, seconds: int) -> None:
        """Time passes, and sessions that made no progress are released."""
        for peer in self.peers + self.stalled:
            peer.lose()
        self.clock.pump([seconds / 4] * 4)
        for model in self.models:
            if self.clock.seconds() - model.progress > 1000 and model.state == "open":
                model.state = "gone"

    # What a client sends

    def send(self, number: int, data: bytes, cuts: list[int]) -> Response | None:
        """Send a request, in pieces, on a connection; read the answer, if any."""
        if self.peers[number].closed:
            self.peers[number] = Peer(self.site)
        peer = self.peers[number]
        edges = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
        for start, end in pairwise(edges):
            peer.send(data[start:end])
        found = responses(peer.received())
        note(f"{data!r} -> {found}")
        if not found:
            return None
        (answer,) = found
        assert answer.headers.get("bits-packet-type") == ["Ack"], answer
        assert answer.headers.get("content-length") == ["0"], answer
        code = answer.headers.get("bits-error-code")
        assert (code is None) == (answer.status in (200, 201)), answer
        assert code == answer.headers.get("bits-error"), answer
        return answer

    def expect(self, answer: Response | None, expected: Any, model: Any = None) -> None:
        """The answer is as predicted, and names the session."""
        assert answer is not None, f"no answer, expected {expected}"
        assert (answer.status, answer["BITS-Error-Code"]) == expected, answer
        if model is not None:
            assert answer["BITS-Session-Id"] == model.session_id.decode()

    numbers = st.integers(0, 2)
    cuts = st.lists(st.integers(0, 10_000), max_size=3)

    @rule(
        number=numbers,
        cuts=cuts,
        where=st.sampled_from(sorted(_TARGETS)),
        data=st.binary(max_size=30),
    )
    def create(self, number: int, cuts: list[int], where: bytes, data: bytes) -> None:
        """Create a session, unless the file is there."""
        answer = self.send(number, packet(b"Create-Session", target=where), cuts)
        if _TARGETS[where] in self.files:
            self.expect(answer, (403, "0x80070005"))
            return
        self.expect(answer, _SUCCESS)
        assert answer is not None
        session_id = answer["BITS-Session-Id"]
        assert session_id is not None
        self.models.append(
            Model(
                session_id.encode(),
                where,
                data,
                progress=self.clock.seconds(),
            )
        )

    @rule(number=numbers, cuts=cuts)
    def ping(self, number: int, cuts: list[int]) -> None:
        """Ping."""
        self.expect(self.send(number, packet(b"Ping"), cuts), _SUCCESS)

    def choose(self, data: st.DataObject) -> Model:
        """Choose a session, alive or not."""
        return data.draw(st.sampled_from(self.models))

    @precondition(lambda self: self.models)
    @rule(
        number=numbers,
        cuts=cuts,
        choice=st.data(),
        start=st.integers(0, 45),
        length=st.integers(0, 20),
        total=st.sampled_from(["right"] * 8 + ["wrong", "huge"]),
        is_chunked=st.booleans(),
    )
    def fragment(
        self,
        number: int,
        cuts: list[int],
        choice: st.DataObject,
        start: int,
        length: int,
        total: str,
        is_chunked: bool,
    ) -> None:
        """Send any range of the file, whole."""
        model = self.choose(choice)
        size = len(model.data)
        first = model.held if start > 30 else min(start, max(size - 1, 0))
        body = model.data[first : first + length]
        claimed = {"right": size, "wrong": size + 1, "huge": 41 + size}[total]
        last = first + len(body) - 1
        if claimed and not body:
            # There is no such range; it is malformed.
            answer = self.send(
                number,
                fragment(model.session_id, first, b"", claimed, target=model.target),
                cuts,
            )
            self.expect(answer, _INVALID, model)
            return
        if not claimed:
            first, last = 0, -1
        value = b"bytes %d-%d/%d" % (first, last, claimed)
        refused = model.refusal(first, last, claimed)
        if is_chunked:
            pieces = [body[i : i + 3] for i in range(0, len(body), 3)]
            data = chunked_fragment(
                model.session_id, value, chunked(*pieces), target=model.target
            )
        else:
            data = fragment(model.session_id, first, body, claimed, target=model.target)
        answer = self.send(number, data, cuts)
        if refused is None:
            model.take(first, len(body), claimed, self.clock.seconds())
            refused = _SUCCESS
        self.expect(answer, refused, model)
        assert answer is not None
        if answer.status in (200, 416):
            assert answer["BITS-Received-Content-Range"] == str(model.held)

    @precondition(lambda self: self.models)
    @rule(
        cuts=cuts,
        choice=st.data(),
        start=st.integers(0, 45),
        length=st.integers(1, 16),
        arrived=st.integers(0, 15),
    )
    def stalled_fragment(
        self,
        cuts: list[int],
        choice: st.DataObject,
        start: int,
        length: int,
        arrived: int,
    ) -> None:
        """
        Send the head and a part of the body, and then nothing more.

        The connection lies there until something ends it. The model need not know
        what: the bytes are held from the moment they arrived.
        """
        model = self.choose(choice)
        first = model.held if start > 30 else start
        body = model.data[first : first + length]
        if not body:
            return
        arrived %= len(body)
        total = len(model.data)
        data = fragment(model.session_id, first, body, total, target=model.target)
        peer = Peer(self.site)
        self.stalled.append(peer)
        edges = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
        sent = data[: len(data) - len(body) + arrived]
        for start_, end in pairwise(edges):
            peer.send(sent[start_:end])
        assert peer.received() == b""
        if model.refusal(first, first + len(body) - 1, total) is None:
            model.take(first, arrived, total, self.clock.seconds())

    @precondition(lambda self: self.stalled)
    @rule(choice=st.data())
    def lose(self, choice: st.DataObject) -> None:
        """A connection is lost, with the fragment that is under way on it."""
        peer = choice.draw(st.sampled_from(self.stalled))
        peer.lose()
        self.stalled.remove(peer)

    @precondition(lambda self: self.models)
    @rule(
        number=numbers,
        choice=st.data(),
        sent=st.integers(0, 16),
        is_long=st.booleans(),
    )
    def mismatched_chunks(
        self, number: int, choice: st.DataObject, sent: int, is_long: bool
    ) -> None:
        """Send a chunked body that is shorter or longer than its range."""
        model = self.choose(choice)
        body = model.data[model.held : model.held + 10]
        if not body:
            return
        sent %= len(body)
        chunks = (body, b"more") if is_long else (body[:sent],) if sent else ()
        last = model.held + len(body) - 1
        value = b"bytes %d-%d/%d" % (model.held, last, len(model.data))
        data = chunked_fragment(
            model.session_id, value, chunked(*chunks), target=model.target
        )
        refused = model.refusal(model.held, last, len(model.data))
        if refused is None:
            arrived = len(body) if is_long else sent
            model.take(model.held, arrived, len(model.data), self.clock.seconds())
            refused = _INVALID
        self.expect(self.send(number, data, []), refused, model)

    @precondition(lambda self: self.models)
    @rule(number=numbers, cuts=cuts, choice=st.data())
    def close(self, number: int, cuts: list[int], choice: st.DataObject) -> None:
        """Close a session, or close it again."""
        model = self.choose(choice)
        name = _TARGETS[model.target]
        data = packet(b"Close-Session", model.session_id, target=model.target)
        expected: Any = _SUCCESS
        if model.state == "gone":
            expected = _NOT_FOUND
        elif model.state == "open":
            is_complete = model.held == model.total or not model.is_tried
            if is_complete and name in self.files:
                expected = (403, "0x80070005")
                if model.total is None:
                    # It is an empty file from now on.
                    model.total, model.is_tried = 0, True
            else:
                model.state = "closed"
                if is_complete:
                    self.files[name] = model.data[: model.held]
        self.expect(self.send(number, data, cuts), expected, model)

    @precondition(lambda self: self.models)
    @rule(number=numbers, cuts=cuts, choice=st.data())
    def cancel(self, number: int, cuts: list[int], choice: st.DataObject) -> None:
        """Cancel a session."""
        model = self.choose(choice)
        data = packet(b"Cancel-Session", model.session_id, target=model.target)
        expected: Any = _NOT_FOUND
        if model.state == "open":
            expected, model.state = _SUCCESS, "gone"
        self.expect(self.send(number, data, cuts), expected, model)

    @precondition(lambda self: self.models)
    @rule(
        number=numbers,
        choice=st.data(),
        kind=st.sampled_from([b"Fragment", b"Close-Session", b"Cancel-Session"]),
        where=st.sampled_from(sorted(_TARGETS)),
        is_unknown=st.booleans(),
    )
    def stranger(
        self,
        number: int,
        choice: st.DataObject,
        kind: bytes,
        where: bytes,
        is_unknown: bool,
    ) -> None:
        """Name a session that does not exist, or another destination's."""
        model = self.choose(choice)
        if not is_unknown and where == model.target:
            return
        session_id = UNKNOWN_ID if is_unknown else model.session_id
        data = packet(kind, session_id, target=where)
        if kind == b"Fragment":
            data = fragment(session_id, 0, b"x", 2, target=where)
        self.expect(self.send(number, data, []), _NOT_FOUND)

    @precondition(lambda self: self.models)
    @rule(
        number=numbers,
        choice=st.data(),
        cuts=cuts,
        name=st.sampled_from(
            ["bits_session_id", "content_range", "bits_packet_type", "content_encoding"]
        ),
        garbage=st.binary(max_size=20).filter(lambda b: not set(b) & set(b"\0\r\n")),
    )
    def mangled(
        self,
        number: int,
        choice: st.DataObject,
        cuts: list[int],
        name: str,
        garbage: bytes,
    ) -> None:
        """Send a fragment with a header that makes no sense."""
        if garbage.strip().lower() in (b"", b"identity"):
            garbage = b"garbage"
        model = self.choose(choice)
        data = fragment(
            model.session_id, 0, b"x", 2, target=model.target, **{name: garbage}
        )
        self.expect(self.send(number, data, cuts), _INVALID)

    @rule(number=numbers, method=st.sampled_from([b"GET", b"PUT", b"POST", b"BREW"]))
    def other_method(self, number: int, method: bytes) -> None:
        """Send something that is no packet."""
        answer = self.send(number, request(method, b"/one"), [])
        self.expect(answer, (405, "0x80070057"))

    @rule(number=numbers, garbage=st.binary(max_size=200))
    def garbage(self, number: int, garbage: bytes) -> None:
        """Send bytes on a connection of their own."""
        peer = Peer(self.site)
        peer.send(garbage)
        peer.lose()
        responses(peer.received())

    # What is always true

    @invariant()
    def nothing_is_logged_as_an_error(self) -> None:
        assert self.errors == [], self.errors

    @invariant()
    def the_backend_holds_what_was_acknowledged(self) -> None:
        held = {
            f"{{{one.session_id}}}".upper().encode(): one
            for one in self.backend._sessions.values()
        }
        alive = [one for one in self.models if one.state == "open"]
        for model in alive:
            upload = held.pop(model.session_id)
            assert upload.offset == model.held, (upload, model)
            assert b"".join(upload._pieces) == model.data[: model.held]
        # What is gone may still be found by the clean-up, if its time is out; what was
        # cancelled or closed may not.
        for session_id in held:
            (model,) = [one for one in self.models if one.session_id == session_id]
            assert model.state == "gone"
            assert self.clock.seconds() - model.progress > 1000

    @invariant()
    def files_are_those_that_were_closed(self) -> None:
        assert self.backend.files == self.files


class ModelTests(SynchronousTestCase):
    """The machine, run."""

    def test_server_does_what_the_model_says(self) -> None:
        try:
            run_state_machine_as_test(
                UploadMachine,
                settings=settings(stateful_step_count=40, report_multiple_bugs=False),
            )
        except Exception as error:
            # Trial does not show the steps, which are in the notes.
            notes = getattr(error, "__notes__", [])
            raise AssertionError("\n".join([repr(error), *notes])) from error
