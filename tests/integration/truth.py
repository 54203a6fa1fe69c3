"""
A client that does what chance says, and knows what a server must have counted then.

It blocks, and so belongs in a thread.
"""

import os
import re
import select
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit
from uuid import uuid4

from attrs import define
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.wire import PROTOCOL, Wire
from txbits.admin.metrics import METRICS

OPEN, CLOSED, ASKED = "/open", "/closed", "/asked"
MOUNTS = (OPEN, CLOSED, ASKED)

#: The longest file, and how many connections there may be.
LONGEST, MOST_CONNECTIONS = 4000, 12

#: What a server counts that no client can know.
_UNKNOWN = {
    "txbits_event_loop_delay_seconds_count",
    "txbits_store_request_seconds_total",
}

_LABELS = {one.name: (*one.labels, "le") for one in METRICS}


class Application(BaseHTTPRequestHandler):
    """Refuses, takes or accepts uploads, as their names ask for."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        name = urlsplit(self.headers["BITS-Original-Request-URL"]).path
        self.send_response(403 if name.endswith("refuse") else 200)
        if name.endswith("accept"):
            self.send_header("BITS-Copy-File-To-Destination", "yes")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        """There is nobody to read it."""


def application(case):
    """Start the server application until the end of a test; its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Application)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    case.addCleanup(thread.join)
    case.addCleanup(server.server_close)
    case.addCleanup(server.shutdown)
    return f"http://127.0.0.1:{server.server_port}/"


def exchange(address, data):
    """Send a request on a connection of its own; status and body of the response."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with closing(socket.socket(family)) as connection:
        connection.settimeout(30)
        connection.connect(address)
        connection.sendall(data)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


def scrape(admin):
    """
    Read the metrics.

    :param admin: The path of the operator's socket.
    :returns: The values that are not 0, by name and values of labels.
    """
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    status, body = exchange(admin, request)
    assert status == 200, body
    found = Counter()
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            name = re.sub("_(bucket|sum|count)$", "", sample.name)
            labels = sample.labels
            values = [labels[one] for one in _LABELS[name] if one in labels]
            if sample.value:
                found[sample.name, *values] = sample.value
    return found


def counted(samples):
    """What was counted, of all samples: events and bytes, but no times."""
    return Counter(
        {
            key: value
            for key, value in samples.items()
            if key[0].endswith(("_total", "_count")) and key[0] not in _UNKNOWN
        }
    )


@define(eq=False)
class Upload:
    """What the client knows of a session."""

    mount: str
    path: bytes
    session: bytes
    total: int
    held: int = 0
    taken: bool = False


class Client:
    """
    The client, and what the server that runs now has counted.

    :param chance: Decides what it does.
    :param admin: The path of the operator's socket.
    :param token: The token that the closed directory takes.

    :ivar expected: What the server has counted since it has started, by name and values
        of labels.
    :ivar doubt: By how much more it may have counted, since a server was killed before
        it had answered.
    :ivar acts: What the client has done, by name.
    """

    def __init__(self, chance, admin, token):
        self.chance, self.admin, self.token = chance, admin, token
        self.open, self.published = [], {}
        self.acts = Counter()
        self.in_flight = None
        self.number = 0

    # The server

    def server_started(self, port, pid, workers=1):
        """A new server has begun to count."""
        self.port, self.pid = port, pid
        self.expected, self.doubt = Counter(), Counter()
        self.started(workers)
        self.connect()

    def started(self, workers):
        """So many processes clean up first."""
        for mount in MOUNTS:
            self.expect("cleanups_total", mount, "succeeded", by=workers)
            self.expect("cleanup_seconds_count", mount, by=workers)

    def connect(self):
        self.wire = Wire(self.port)
        self.expect("connections_made_total")

    def expect(self, name, *labels, by=1):
        self.expected[f"txbits_{name}", *labels] += by

    def may_be(self, name, *labels, by=1):
        self.doubt[f"txbits_{name}", *labels] += by

    def read_until(self, is_so):
        """Read the metrics until they are so, or for ten seconds; the last ones."""
        ends = time.monotonic() + 10
        while True:
            found = scrape(self.admin)
            if is_so(found) or time.monotonic() > ends:
                return found
            time.sleep(0.02)

    def differences(self):
        """What the server has counted and what has happened, where these differ."""
        found = {}

        def agree(samples):
            nonlocal found
            has, must, more = counted(samples), self.expected, self.doubt
            found = {
                key: (has[key], must[key], must[key] + more[key])
                for key in {*has, *must}
                if not must[key] <= has[key] <= must[key] + more[key]
            }
            return not found

        self.samples = self.read_until(agree)
        return found

    def gauges(self):
        """Open sessions and staged bytes, as read last and as they must be."""
        found, must = Counter(), Counter()
        for (name, *labels), value in self.samples.items():
            if name in ("txbits_sessions", "txbits_staged_bytes"):
                found[name, *labels] = value
        for one in self.open:
            must["txbits_sessions", one.mount] += 1
            if one.held:
                must["txbits_staged_bytes", one.mount] += one.total
        return +found, +must

    def all_run(self, workers):
        """Wait until so many workers run."""
        found = self.read_until(lambda now: now["txbits_workers", "running"] == workers)
        assert found["txbits_workers", "running"] == workers, found

    # Packets

    def login(self, mount):
        """The credentials that a directory takes."""
        if mount != CLOSED:
            return {}
        return {"Authorization": b"Bearer " + self.token}

    def send(self, mount, path, kind, body=b"", login=None, **headers):
        """Send a packet, and expect that it is counted; status and headers."""
        if login is None:
            login = self.login(mount)
            if mount == CLOSED:
                self.expect("authentications_total", mount, "bearer", "accepted")
        data = kind.encode()
        status, answer = self.wire.packet(path, data, body, **headers, **login)
        known = kind if kind in _KINDS else "other"
        self.expect("packets_total", mount, known, str(status))
        if answer.get(b"connection") == b"close":
            self.wire.close()
            self.connect()
        return status, answer

    def act_in(self, upload, kind, body=b"", **headers):
        session = upload.session
        return self.send(
            upload.mount, upload.path, kind, body, BITS_Session_Id=session, **headers
        )

    def fragment(self, upload, first, last, total=None):
        where = b"bytes %d-%d/%d" % (first, last - 1, total or upload.total)
        body = b"x" * (last - first)
        return self.act_in(upload, "Fragment", body, Content_Range=where)

    def refused(self, answer, mount, name):
        assert b"bits-error-code" in answer[1], (name, answer)
        self.expect("refusals_total", mount, name)

    def any(self, mounts=MOUNTS):
        fitting = [one for one in self.open if one.mount in mounts]
        return self.chance.choice(fitting) if fitting else self.begin(mounts)

    # What it does

    def begin(self, mounts=MOUNTS):
        mount = self.chance.choice(mounts)
        self.number += 1
        name = f"{mount}/{self.number}"
        if mount == ASKED:
            name += "-" + self.chance.choice(["accept", "take", "refuse"])
        path = name.encode()
        create = {"BITS_Supported_Protocols": PROTOCOL}
        status, answer = self.send(mount, path, "Create-Session", **create)
        assert status == 200, answer
        self.expect("sessions_created_total", mount)
        session, total = answer[b"bits-session-id"], self.chance.randint(2, LONGEST)
        upload = Upload(mount, path, session, total)
        self.open.append(upload)
        return upload

    def go_on(self):
        upload = self.any()
        if upload.held < upload.total:
            last = self.chance.randint(upload.held + 1, upload.total)
            self.store(upload, last)

    def store(self, upload, last):
        answer = self.fragment(upload, upload.held, last)
        self.expect("received_bytes_total", upload.mount, by=last - upload.held)
        upload.held = last
        if last == upload.total and upload.mount == ASKED:
            self.was_asked(upload, answer)
        if upload in self.open:
            assert answer[0] == 200, answer
            self.expect("fragment_ack_seconds_count", upload.mount)

    def was_asked(self, upload, answer):
        """The server application has decided about an upload."""
        self.expect("notification_seconds_count", ASKED)
        if upload.path.endswith(b"refuse"):
            self.expect("notifications_total", ASKED, "refused")
            self.refused(answer, ASKED, "application-refused")
            self.give_up(upload)
        else:
            self.expect("notifications_total", ASKED, "accepted")
            upload.taken = upload.path.endswith(b"take")

    def break_off(self):
        upload = self.any()
        if upload.total - upload.held < 2:
            return
        length = self.chance.randint(2, upload.total - upload.held)
        arrived = self.chance.randint(1, length - 1)
        self.send_a_part(upload, length, arrived)
        self.wire.close()
        upload.held += arrived
        self.expect("received_bytes_total", upload.mount, by=arrived)
        self.expect("packets_total", upload.mount, "Fragment", "none")
        if upload.mount == CLOSED:
            self.expect("authentications_total", CLOSED, "bearer", "accepted")
        self.connect()
        # The server is to know it before the next packet comes.
        self.differences()

    def send_a_part(self, upload, length, arrived):
        """Send a part of a fragment."""
        last = upload.held + length - 1
        self.wire.packet(
            *(upload.path, b"Fragment", b"x" * length, arrived - length),
            BITS_Session_Id=upload.session,
            Content_Range=b"bytes %d-%d/%d" % (upload.held, last, upload.total),
            **self.login(upload.mount),
        )

    def close(self):
        upload = self.any()
        answer = self.act_in(upload, "Close-Session")
        mount, is_whole = upload.mount, upload.held in (0, upload.total)
        if mount == ASKED and not upload.held:
            self.was_asked(upload, answer)
            if upload not in self.open:
                return
        assert answer[0] == 200, answer
        self.open.remove(upload)
        self.expect("close_seconds_count", mount)
        if is_whole and not upload.taken:
            self.expect("sessions_ended_total", mount, "published", "close")
            self.expect("published_bytes_total", mount, by=upload.held)
            self.published[upload.path] = mount, upload.held
        elif is_whole:
            self.expect("sessions_ended_total", mount, "handed-over", "close")
        else:
            self.expect("sessions_ended_total", mount, "discarded", "close")
            self.expect("discarded_bytes_total", mount, by=upload.held)

    def cancel(self):
        self.give_up(self.any())

    def give_up(self, upload):
        status, answer = self.act_in(upload, "Cancel-Session")
        assert status == 200, answer
        self.has_ended(upload, "cancel")

    def has_ended(self, upload, why):
        self.open.remove(upload)
        self.expect("sessions_ended_total", upload.mount, "cancelled", why)
        self.expect("discarded_bytes_total", upload.mount, by=upload.held)

    def send_too_much(self):
        upload = self.begin()
        answer = self.fragment(upload, 0, 10, LONGEST + 1)
        self.refused(answer, upload.mount, "upload-too-large")
        self.give_up(upload)

    def skip_bytes(self):
        upload = self.any()
        if upload.total - upload.held > 2:
            answer = self.fragment(upload, upload.held + 1, upload.held + 2)
            self.refused(answer, upload.mount, "out-of-step")
            if not upload.held:
                # The server knows now that the file is not empty.
                self.store(upload, 1)

    def name_nobody(self):
        mount = self.chance.choice(MOUNTS)
        nobody = Upload(mount, f"{mount}/x".encode(), b"{%b}" % _new_id(), 9)
        self.refused(self.fragment(nobody, 0, 2), mount, "session-not-found")

    def create_again(self):
        if self.published:
            path, (mount, _) = self.chance.choice(list(self.published.items()))
            create = {"BITS_Supported_Protocols": PROTOCOL}
            answer = self.send(mount, path, "Create-Session", **create)
            self.refused(answer, mount, "destination-exists")

    def ping(self):
        mount = self.chance.choice(MOUNTS)
        assert self.send(mount, f"{mount}/".encode(), "Ping")[0] == 200

    def talk_nonsense(self):
        mount = self.chance.choice(MOUNTS)
        answer = self.send(mount, f"{mount}/".encode(), "Nonsense", login={})
        self.refused(answer, mount, "unknown-packet-type")

    def go_astray(self):
        answer = self.wire.packet(b"/nowhere", b"Ping")
        self.expect("packets_total", "", "other", "404")
        self.refused(answer, "", "not-mounted")

    def log_in_wrongly(self):
        wrong = self.chance.choice([None, b"Bearer " + b"x" * 43, b"Basic eDp4"])
        scheme = "bearer" if wrong and wrong.startswith(b"Bearer") else "none"
        login = {"Authorization": wrong} if wrong else {}
        answer = self.send(CLOSED, CLOSED.encode() + b"/", "Ping", login=login)
        self.refused(answer, CLOSED, "credentials-rejected")
        self.expect("authentications_total", CLOSED, scheme, "rejected")

    def download(self):
        mount, path, size = self.chance.choice(MOUNTS), b"", 0
        if self.published and self.chance.random() < 0.8:
            path, (mount, size) = self.chance.choice(list(self.published.items()))
        method = self.chance.choice([b"GET", b"HEAD"])
        lines = [
            b"%b %b HTTP/1.1" % (method, path or mount.encode() + b"/none"),
            b"Host: localhost",
            b"Connection: close",
        ]
        lines += [b"%b: %b" % (n.encode(), v) for n, v in self.login(mount).items()]
        status, served = (200, size) if path else (404, 0)
        if method == b"GET" and size > 1 and self.chance.random() < 0.3:
            lines.append(b"Range: bytes=1-%d" % (size - 1))
            status, served = 206, size - 1
        answered, body = exchange(
            ("127.0.0.1", self.port), b"\r\n".join([*lines, b"", b""])
        )
        assert answered == status, (answered, lines)
        self.expect("connections_made_total")
        self.expect("downloads_total", mount, method.decode(), str(status))
        if mount == CLOSED:
            self.expect("authentications_total", mount, "bearer", "accepted")
        if method == b"GET" and path:
            assert len(body) == served, (len(body), lines)
            self.expect("served_bytes_total", mount, by=served)

    def cancel_as_operator(self):
        upload = self.any()
        target = b"/api/sessions/" + upload.session.strip(b"{}")
        status, body = exchange(
            self.admin,
            b"DELETE %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target,
        )
        assert status == 200, body
        self.has_ended(upload, "operator")

    # Once for each server, since they take long

    def reload(self, settings):
        """Let the server read its settings, twice: once with a mistake."""
        text = settings.read_text()
        for result, change in (("succeeded", ""), ("failed", "what = 'this'\n")):
            settings.write_text(change + text)
            os.kill(self.pid, signal.SIGHUP)
            self.expect("reloads_total", "settings", result)
            if result == "succeeded":
                for what in ("certificates", "admin certificates"):
                    self.may_be("reloads_total", what, "succeeded", by=2)
            self.differences()
        settings.write_text(text)

    def crowd(self):
        """Open more connections than there may be."""
        self.wire.close()
        self.read_until(_has_connections(0))
        crowd = []
        for _ in range(MOST_CONNECTIONS + 3):
            one = socket.create_connection(("127.0.0.1", self.port), timeout=30)
            crowd.append(one)
        left = set(crowd)
        while len(left) > MOST_CONNECTIONS:
            # Several workers accept them in any order.
            readable, _, _ = select.select(left, [], [], 30)
            assert readable, f"{len(left)} are open"
            left.difference_update(one for one in readable if _is_closed(one))
        self.expect("connections_made_total", by=MOST_CONNECTIONS)
        self.expect("connections_turned_away_total", by=3)
        found = self.read_until(_has_connections(MOST_CONNECTIONS))
        assert found["txbits_connections", "new"] == MOST_CONNECTIONS, found
        for one in crowd:
            one.close()
        self.read_until(_has_connections(0))
        self.connect()

    # A server that is killed

    def kill(self, pid=None):
        """
        Send a packet, and kill the server before it answers, or just after.

        :param pid: The process to kill, if it is not the only one.
        """
        self.in_flight = upload = self.any((OPEN, CLOSED))
        left = upload.total - upload.held
        kinds = ["Close-Session", "Cancel-Session", *(["Fragment"] if left else ())]
        kind = self.chance.choice(kinds)
        try:
            if kind == "Fragment":
                self.send_a_part(upload, left, self.chance.randint(0, left))
            else:
                self.wire.packet(
                    *(upload.path, kind.encode(), b"", 10_000),
                    BITS_Session_Id=upload.session,
                    **self.login(upload.mount),
                )
            for _ in range(self.chance.randrange(3000)):
                pass
        finally:
            os.kill(self.pid if pid is None else pid, signal.SIGKILL)
        self.wire.close()

    def kill_worker(self, pid):
        """
        Do the same to one of several workers. What the others have counted goes on.
        """
        # What was counted until now must be known.
        self.any((OPEN, CLOSED))
        self.differences()
        self.kill(pid)
        upload = self.in_flight
        mount = upload.mount
        if mount == CLOSED:
            self.may_be("authentications_total", mount, "bearer", "accepted")
        for kind in "Fragment", "Close-Session", "Cancel-Session":
            for status in "200", "none", "503":
                self.may_be("packets_total", mount, kind, status)
        self.may_be("refusals_total", mount, "worker-unavailable")
        self.may_be("fragment_ack_seconds_count", mount)
        self.may_be("received_bytes_total", mount, by=upload.total)
        self.started(1)

    def clear_up(self):
        """
        Find out what has become of the upload whose packet was not answered; end it.
        """
        upload = self.in_flight
        self.lose_sight()
        kind = self.chance.choice(["Close-Session", "Cancel-Session"])
        answer = self.act_in(upload, kind)
        if answer[0] != 200:
            self.refused(answer, upload.mount, "session-not-found")

    def lose_sight(self):
        """
        Leave open what becomes of that upload. It may be known as ended, end when a
        packet comes, or be ended by the clean-up; the bytes that were on their way may
        have arrived.
        """
        upload, self.in_flight = self.in_flight, None
        self.open.remove(upload)
        mount = upload.mount
        for ending in (
            *(("published", "close"), ("discarded", "close"), ("cancelled", "cancel")),
            *(("published", "unfinished"), ("released", "unfinished")),
            *(("published", "cancel"), ("released", "timed-out")),
        ):
            self.may_be("sessions_ended_total", mount, *ending)
        for name in ("discarded_bytes_total", "published_bytes_total"):
            self.may_be(name, mount, by=upload.total)
        self.may_be("close_seconds_count", mount)

    def run_out_of_time(self):
        """All sessions that were open have timed out when a server starts."""
        for one in self.open:
            self.expect("sessions_ended_total", one.mount, "released", "timed-out")
            self.expect("discarded_bytes_total", one.mount, by=one.held)
        self.open.clear()


_KINDS = {"Create-Session", "Fragment", "Close-Session", "Cancel-Session", "Ping"}

#: What it does, and how often compared to the rest.
ACTS = {
    "begin": 3, "go_on": 8, "break_off": 1, "close": 3, "cancel": 1,
    "send_too_much": 1, "skip_bytes": 1, "name_nobody": 1, "create_again": 1,
    "ping": 1, "talk_nonsense": 1, "go_astray": 1, "log_in_wrongly": 2,
    "download": 2, "cancel_as_operator": 1,
}  # fmt: skip


def _new_id():
    return str(uuid4()).upper().encode()


def _is_closed(connection):
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def _has_connections(number):
    def are_there(samples):
        found = [v for key, v in samples.items() if key[0] == "txbits_connections"]
        return sum(found) == number

    return are_there
