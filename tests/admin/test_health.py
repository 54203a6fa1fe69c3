"""
Whether the server can take uploads: what health pages say.
"""

from twisted.trial.unittest import SynchronousTestCase

from tests.web.support import WebCase, packet, request
from txbits.admin import Health, HealthResource
from txbits.errors import BackendError
from txbits.web.mounts import Mounts


class StateTests(SynchronousTestCase):
    """What the server as a whole is doing."""

    def test_a_server_is_ready_only_while_it_runs(self):
        health = Health(list)
        self.assertEqual(
            (health.ready().status, health.ready().body), (503, b"starting\n")
        )
        health.state = "running"
        self.assertEqual(
            (health.ready().status, health.ready().body), (200, b"ready\n")
        )
        health.state = "stopping"
        self.assertEqual(
            (health.ready().status, health.ready().body), (503, b"stopping\n")
        )

    def test_one_of_several_processes_is_ready_only_if_all_are(self):
        health = Health(list)
        health.state = "running"
        health.elsewhere = ["worker 2 is not running"]
        self.assertEqual(health.ready().status, 503)
        self.assertEqual(health.ready().body, b"worker 2 is not running\n")
        self.assertEqual(health.obstacles_here(), [])
        health.elsewhere = []
        self.assertEqual(health.ready().status, 200)

    def test_a_server_is_alive_whatever_it_is_doing(self):
        health = Health(list)
        self.assertEqual((health.live().status, health.live().body), (200, b"live\n"))


class BackendTests(WebCase):
    """A directory whose store fails."""

    def setUp(self):
        super().setUp()
        self.health = Health(lambda: [("/", self.resource.manager)])
        self.health.state = "running"
        self.root = Mounts(
            {(): self.resource}, {(b"health",): HealthResource(self.health)}
        )
        self.site = self.bits_site(self.root)

    def fail(self):
        """Let the store fail to create a session."""
        gate = self.backend.hold("create")
        peer = self.peer()
        peer.send(packet(b"Create-Session"))
        gate.fail(BackendError("on fire"))
        gate.open()
        self.assert_refused(self.answer(peer), "storage-fault")

    def ask_health(self, method=b"GET"):
        return self.ask(request(method, b"/health"))

    def test_a_server_is_not_ready_after_a_failure_until_the_next_success(self):
        self.fail()
        page = self.health.ready()
        self.assertEqual(
            (page.status, page.body), (503, b"/: no session can be created\n")
        )
        self.create()
        self.assertEqual(self.health.ready().status, 200)

    def test_a_failure_counts_for_a_minute_since_without_clients_nothing_succeeds(self):
        self.fail()
        self.clock.advance(59)
        self.assertEqual(self.health.ready().status, 503)
        self.clock.advance(2)
        self.assertEqual(self.health.ready().status, 200)

    def test_the_listeners_of_uploads_do_not_tell_why(self):
        response = self.ask_health()
        self.assertEqual((response.status, response.body), (200, b"ready\n"))
        self.assertEqual(response["Cache-Control"], "no-store")
        self.fail()
        response = self.ask_health()
        self.assertEqual((response.status, response.body), (503, b"not ready\n"))

    def test_head_is_answered_without_a_body(self):
        peer = self.peer()
        peer.send(request(b"HEAD", b"/health"))
        head, _, body = peer.received().partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200 "), head)
        self.assertEqual(body, b"")

    def test_other_methods_are_refused(self):
        for method in (b"POST", b"DELETE", b"BITS_POST"):
            response = self.ask_health(method)
            self.assertEqual(response.status, 405)
            self.assertEqual(response["Allow"], "GET, HEAD")

    def test_uploads_beside_the_path_are_served(self):
        self.create(b"/healthy")
