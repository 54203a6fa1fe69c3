"""
Uploads that ping, that go on after another run, and that the server sends elsewhere.
"""

from attrs import define
from twisted.trial.unittest import SynchronousTestCase

from txbits.protocol.fragment_sizes import FragmentSizes
from txbits.protocol.packets import Ack, CloseSession, CreateSession, Fragment, Ping
from txbits.protocol.reactions import Again, Done, Later, Refused
from txbits.protocol.refusals import HResult
from txbits.protocol.upload import Position, Upload

SESSION = "{7DF0354D-249B-430F-820D-3D2A9BEF4931}"
ELSEWHERE = Ack(200, SESSION, host_id="node2.example", host_id_fallback_timeout=60)


@define
class Time:
    """A clock that the test turns."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class UploadTestCase(SynchronousTestCase):
    """An upload of 100 bytes in fragments of 40."""

    def setUp(self) -> None:
        self.time = Time(1000.0)

    def upload(self, *, pings_connections: bool = False) -> Upload:
        return Upload(
            100,
            FragmentSizes.fixed(40),
            pings_connections=pings_connections,
            clock=self.time,
        )

    def assert_fragment(self, upload: Upload, first: int) -> None:
        packet = upload.next_packet()
        assert isinstance(packet, Fragment), packet
        self.assertEqual(packet.content_range.first, first)


class PingTests(UploadTestCase):
    """Asking whether anyone is there."""

    def sending(self, *, pings_connections: bool = False) -> Upload:
        upload = self.upload(pings_connections=pings_connections)
        if pings_connections:
            upload.answered(Ack(200))
        upload.answered(Ack(200, SESSION))
        return upload

    def test_an_upload_begins_without_one(self) -> None:
        self.assertEqual(self.upload().next_packet(), CreateSession())

    def test_after_a_pause_one_comes_first(self) -> None:
        upload = self.sending()
        upload.ping()
        self.assertEqual(upload.next_packet(), Ping())
        self.assertEqual(upload.answered(Ack(200)), Again(progress=False))
        self.assert_fragment(upload, 0)

    def test_two_pauses_are_one(self) -> None:
        upload = self.sending()
        upload.ping()
        upload.ping()
        upload.answered(Ack(200))
        self.assert_fragment(upload, 0)

    def test_nobody_is_pinged_when_all_is_over_or_to_be_cancelled(self) -> None:
        upload = self.sending()
        upload.cancel()
        upload.ping()
        self.assertNotEqual(upload.next_packet(), Ping())

    def test_a_ping_that_may_succeed_later_is_sent_again(self) -> None:
        upload = self.sending()
        upload.ping()
        for reaction in (upload.answered(Ack(503)), upload.unanswered("cable cut")):
            self.assertIsInstance(reaction, Later)
            self.assertEqual(upload.next_packet(), Ping())

    def test_a_server_that_wants_a_password_is_heard(self) -> None:
        for status in (401, 407):
            upload = self.sending()
            upload.ping()
            self.assertIsInstance(upload.answered(Ack(status)), Refused)

    def test_a_server_that_knows_no_ping_gets_the_next_packet(self) -> None:
        for status in (400, 404, 405, 501):
            upload = self.sending()
            upload.ping()
            upload.answered(Ack(status))
            self.assert_fragment(upload, 0)

    def test_connections_that_are_authenticated_begin_with_one(self) -> None:
        upload = self.upload(pings_connections=True)
        self.assertEqual(upload.next_packet(), Ping())
        upload.answered(Ack(200))
        self.assertEqual(upload.next_packet(), CreateSession())

    def test_and_so_does_the_connection_after_one_that_broke(self) -> None:
        upload = self.sending(pings_connections=True)
        upload.unanswered("cable cut")
        self.assertEqual(upload.next_packet(), Ping())
        upload.answered(Ack(200))
        self.assert_fragment(upload, 0)

    def test_other_connections_do_not(self) -> None:
        upload = self.sending()
        upload.unanswered("cable cut")
        self.assert_fragment(upload, 0)


class RestoreTests(UploadTestCase):
    """Going on where another run stopped."""

    def restored(self, position: Position) -> Upload:
        upload = self.upload()
        upload.restore(position)
        return upload

    def test_a_session_is_pinged_for_and_gone_on_with(self) -> None:
        upload = self.restored(Position(SESSION, 40))
        self.assertEqual(upload.next_packet(), Ping())
        upload.answered(Ack(200))
        self.assert_fragment(upload, 40)

    def test_a_file_that_is_complete_is_closed(self) -> None:
        upload = self.restored(Position(SESSION, 100, reply_url="http://h/r"))
        upload.answered(Ack(200))
        self.assertEqual(upload.next_packet(), CloseSession(SESSION))
        self.assertEqual(upload.answered(Ack(200)), Done(SESSION, "http://h/r"))

    def test_without_a_session_there_is_nothing_to_go_on_with(self) -> None:
        self.assertEqual(self.restored(Position()).next_packet(), CreateSession())

    def test_what_the_server_held_before_is_no_progress(self) -> None:
        upload = self.restored(Position(SESSION, 80))
        upload.answered(Ack(200))
        upload.answered(Ack(416, received=0))
        self.assertEqual(upload.answered(Ack(200, received=80)), Again(progress=False))
        self.assertEqual(upload.answered(Ack(200, received=100)), Again(progress=True))

    def test_the_position_is_what_was_restored(self) -> None:
        position = Position(SESSION, 40, "h2", 60, 990.0)
        upload = self.restored(position)
        self.assertEqual(upload.host, "h2")
        self.assertEqual(upload.position, position)

    def test_a_host_that_was_failing_is_left_in_time(self) -> None:
        upload = self.restored(Position(SESSION, 40, "h2", 60, 930.0))
        self.assertIsNone(upload.host)


class HostTests(UploadTestCase):
    """BITS-Host-Id and BITS-Host-Id-Fallback-Timeout."""

    def elsewhere(self) -> Upload:
        upload = self.upload()
        upload.answered(ELSEWHERE)
        return upload

    def test_the_host_is_pinged_and_gets_all_that_follows(self) -> None:
        upload = self.elsewhere()
        self.assertEqual((upload.next_packet(), upload.host), (Ping(), "node2.example"))
        upload.answered(Ack(200))
        self.assert_fragment(upload, 0)
        self.assertEqual(upload.host, "node2.example")

    def test_a_host_that_fails_for_long_enough_is_left(self) -> None:
        upload = self.elsewhere()
        upload.unanswered("no route")
        self.time.now += 59
        upload.unanswered("no route")
        self.assertEqual(upload.host, "node2.example")
        self.time.now += 1
        self.assertIsNone(upload.host)
        self.assertEqual(upload.next_packet(), Ping())
        upload.answered(Ack(200))
        self.assert_fragment(upload, 0)

    def test_answers_that_are_no_success_count_as_well(self) -> None:
        upload = self.elsewhere()
        upload.answered(Ack(503))
        self.time.now += 60
        self.assertIsNone(upload.host)

    def test_progress_there_makes_the_time_new(self) -> None:
        upload = self.elsewhere()
        upload.answered(Ack(200))
        upload.unanswered("cable cut")
        self.time.now += 50
        upload.answered(Ack(200, received=40))
        upload.unanswered("cable cut")
        self.time.now += 50
        self.assertEqual(upload.host, "node2.example")
        self.time.now += 10
        self.assertIsNone(upload.host)

    def test_time_in_which_nothing_fails_does_not_count(self) -> None:
        upload = self.elsewhere()
        upload.answered(Ack(200))
        self.time.now += 1000
        self.assertEqual(upload.host, "node2.example")

    def test_without_a_time_out_it_is_never_left(self) -> None:
        upload = self.upload()
        upload.answered(Ack(200, SESSION, host_id="node2.example"))
        upload.unanswered("no route")
        self.time.now += 1e9
        self.assertEqual(upload.host, "node2.example")

    def test_what_is_no_host_is_passed_over(self) -> None:
        no_hosts = "|a/b|me@h|h:port|a b|http://h|[x]|h:1:x|h:0|h:65536|..|a..b|-a|1:"
        for host in no_hosts.split("|"):
            upload = self.upload()
            upload.answered(Ack(200, SESSION, host_id=host))
            self.assertIsNone(upload.host, host)
            self.assert_fragment(upload, 0)

    def test_hosts_are_names_and_addresses_with_a_port_or_without(self) -> None:
        for host in ("h", "h:81", "10.0.0.1", "::1", "fe80::1", "[::1]", "[::1]:81"):
            upload = self.upload()
            upload.answered(Ack(200, SESSION, host_id=host))
            self.assertEqual(upload.host, host)

    def test_a_session_that_the_first_server_does_not_know_is_begun_anew(self) -> None:
        upload = self.elsewhere()
        upload.answered(Ack(200))
        upload.answered(Ack(200, received=40))
        upload.unanswered("no route")
        self.time.now += 60
        self.assertIsNone(upload.host)
        upload.answered(Ack(500, hresult=HResult.BG_E_SESSION_NOT_FOUND))
        self.assertEqual((upload.next_packet(), upload.host), (CreateSession(), None))
        upload.answered(Ack(200, "another"))
        self.assert_fragment(upload, 0)

    def test_a_session_that_the_other_host_forgot_is_begun_anew_there(self) -> None:
        upload = self.elsewhere()
        upload.answered(Ack(200))
        upload.answered(Ack(500, hresult=HResult.BG_E_SESSION_NOT_FOUND))
        self.assertEqual(upload.next_packet(), CreateSession())
        self.assertEqual(upload.host, "node2.example")


class RateTests(UploadTestCase):
    """Fragments that follow the network."""

    def test_the_time_of_a_fragment_sets_the_length_of_the_next(self) -> None:
        upload = Upload(10**9, clock=self.time)
        upload.answered(Ack(200, SESSION))
        packet = upload.next_packet()
        assert isinstance(packet, Fragment)
        length = packet.content_range.length
        self.time.now += 20
        upload.answered(Ack(200, received=length))
        following = upload.next_packet()
        assert isinstance(following, Fragment)
        self.assertEqual(following.content_range.length, length // 2)

    def test_a_fragment_without_an_answer_makes_the_next_one_shorter(self) -> None:
        upload = Upload(10**9, clock=self.time)
        upload.answered(Ack(200, SESSION))
        size = upload.sizes.size
        upload.unanswered("cable cut")
        self.assertEqual(upload.sizes.size, size // 2)
