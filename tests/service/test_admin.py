"""
The operator's listener and the health path in a service that was started with a file.
"""

import socket
from pathlib import Path

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.support import request
from tests.service.test_reload import TOP, ReloadCase
from tests.web.support import responses
from txbits.errors import InvalidSetting
from txbits.service._operators import check_admin
from txbits.service.settings import Access, Configuration, Directory
from txbits.testing.memory import Peer

SOCKET = "unix:admin:mode=600"

# The password is "secret".
PASSWORDS = "alice:$2b$04$FIaldE2spxI9cWLFDEA4fuC4Sz.x/lWWxYAFw0HP4KtJ6bpSdRVjm\n"


def directory(mount, *schemes, **access):
    return Directory(
        where=f"directory {mount}: ",
        mount=mount,
        backend="memory:",
        access=Access(authenticate=schemes, **access),
    )


class RuleTests(SynchronousTestCase):
    """Which settings let only operators connect."""

    def complaint(self, *directories, **settings):
        configuration = Configuration(
            directories=directories or (directory("/"),), **settings
        )
        error = self.assertRaises(InvalidSetting, check_admin, configuration)
        self.assertEqual(len(str(error).splitlines()), 1)
        return str(error)

    def accept(self, *directories, **settings):
        check_admin(
            Configuration(directories=directories or (directory("/"),), **settings)
        )

    def test_nothing_is_needed_for_no_listener(self):
        self.accept()

    def test_a_socket_with_a_mode_needs_no_users(self):
        self.accept(admin_listen="unix:/run/admin:mode=600")
        self.accept(admin_listen="systemd:domain=UNIX:index=0")

    def test_a_socket_for_everyone_is_refused(self):
        self.assertEqual(
            self.complaint(admin_listen="unix:/run/admin"),
            "--admin-listen: unix:/run/admin: every user of this machine could "
            "connect; append :mode=600, or :mode=660 for a group",
        )

    def test_any_other_endpoint_needs_users_even_on_loopback(self):
        for endpoint in (
            "tcp:9100",
            "tcp:9100:interface=127.0.0.1",
            "https:9100:certificate=a:key=b:client-ca=c",
            "systemd:domain=INET:index=0",
        ):
            self.assertEqual(
                self.complaint(admin_listen=endpoint, admin_from="x: "),
                f"x: admin-listen: {endpoint}: requires admin-users, unless it is a "
                "Unix socket, such as unix:/run/txbits/admin:mode=600",
            )

    def test_users_need_a_directory_that_knows_them(self):
        for one in (directory("/"), directory("/", "link")):
            self.assertIn(
                "admin-users: requires a directory with authentication schemes",
                self.complaint(one, admin_listen="tcp:1", admin_users=("alice",)),
            )
        self.accept(
            directory("/"),
            directory("/a", "basic", "link"),
            admin_listen="tcp:1",
            admin_users=("alice",),
        )

    def test_one_of_several_directories_is_named(self):
        both = directory("/a", "basic"), directory("/b", "bearer")
        listener = {"admin_listen": "tcp:1", "admin_users": ("alice",)}
        self.assertIn("/a, /b; set admin-directory", self.complaint(*both, **listener))
        self.accept(*both, **listener, admin_directory="/b/")
        self.assertIn(
            "admin-directory: /c must be the mount of a directory",
            self.complaint(*both, **listener, admin_directory="/c"),
        )

    def test_settings_without_effect_are_refused(self):
        self.assertEqual(
            self.complaint(admin_users=("alice",)),
            "--admin-users: requires admin-listen",
        )
        self.assertEqual(
            self.complaint(admin_directory="/"),
            "--admin-directory: requires admin-listen",
        )
        self.assertEqual(
            self.complaint(admin_directory="/", admin_listen=SOCKET),
            "--admin-directory: requires admin-users",
        )


class ServiceCase(ReloadCase):
    """A service whose operator's site is asked in memory."""

    def ask(self, site, target, **headers):
        peer = Peer(site, "192.0.2.1")
        peer.send(request(b"GET", target, **headers))
        (response,) = responses(peer.received())
        return response

    def admin(self, target=b"/health/ready", **headers):
        return self.ask(self.service.admin.site, target, **headers)

    def uploads(self, target):
        return self.ask(self.service.site, target)


class SocketTests(ServiceCase):
    """A listener that only some users of the machine can connect to."""

    top = TOP + f'admin-listen = "{SOCKET}"\n'

    def test_it_listens_and_answers_without_credentials(self):
        self.start('mount="/"\nbackend="memory:"', top=self.top)
        self.assertEqual([one[0] for one in self.reactor.unixServers], ["admin"])
        self.assertEqual([one[3] for one in self.reactor.unixServers], [0o600])
        self.assertIn("listening on admin for the operator", self.lines(LogLevel.info))
        self.assertEqual(self.admin().status, 200)

    def test_metrics_are_those_of_the_service(self):
        self.start('mount="/a"\nbackend="memory:"', top=self.top)
        self.uploads(b"/a/none")
        self.hang_up()
        self.reactor.advance(1)
        response = self.admin(b"/metrics")
        self.assertEqual(response.status, 200)
        for line in (
            b'txbits_packets_total{directory="/a",status="405",type="other"} 1.0',
            b"txbits_connections_made_total 1.0",
            b'txbits_reloads_total{result="succeeded",what="settings"} 1.0',
            b"txbits_event_loop_delay_seconds_count 1.0",
        ):
            self.assertIn(line + b"\n", response.body)

    def test_the_page_is_that_of_the_service(self):
        self.start('mount="/a"\nbackend="memory:"', top=self.top)
        self.uploads(b"/a/none")
        self.reactor.advance(10)
        response = self.admin(b"/")
        self.assertEqual(response.status, 200)
        for words in (
            "memory:",
            socket.gethostname(),
            "this URL does not accept that method",
            "Packets in the last hour: now 0.1/s",
            "✓ Ready",
        ):
            self.assertIn(words.encode(), response.body)

    def test_a_stop_ends_the_events_of_the_page(self):
        self.start('mount="/a"\nbackend="memory:"', top=self.top)
        peer = Peer(self.service.admin.site, "192.0.2.1")
        peer.send(request(b"GET", b"/events"))
        self.assertIn(b"text/event-stream", peer.received())
        stopped = self.service.stopService()
        self.reactor.advance(1)
        self.successResultOf(stopped)
        self.assertTrue(peer.closed)
        self.assertTrue(peer.received().endswith(b"0\r\n\r\n"))

    def test_its_site_serves_no_uploads_and_the_other_no_pages(self):
        self.start('mount="/a"\nbackend="memory:"', top=self.top)
        self.assertEqual(self.admin(b"/a/b").status, 404)
        self.assertEqual(self.uploads(b"/health/ready")["BITS-Error-Code"][:2], "0x")

    def test_another_endpoint_requires_a_restart(self):
        self.start('mount="/"\nbackend="memory:"', top=self.top)
        self.reload('mount="/"\nbackend="memory:"')
        self.assert_changed()
        self.assertEqual(
            self.lines(LogLevel.warn),
            [f"restart required: {self.path}: admin-listen: still {SOCKET}"],
        )
        self.hang_up()
        self.assertEqual(len(self.lines(LogLevel.warn)), 1)

    def test_a_reload_with_a_mistake_changes_nothing(self):
        self.start('mount="/"\nbackend="memory:"', top=self.top)
        self.reload(
            'mount="/"\nbackend="memory:"', top=TOP + 'admin-listen = "tcp:2"\n'
        )
        self.assert_nothing_changed(
            f"{self.path}: admin-listen: tcp:2: requires admin-users, unless it is a "
            "Unix socket, such as unix:/run/txbits/admin:mode=600"
        )

    def test_a_wrong_endpoint_string_is_refused(self):
        error = self.assertRaises(
            InvalidSetting,
            self.start,
            'mount="/"\nbackend="memory:"',
            top=TOP + 'admin-listen = "unix:x:mode=600:y=z"\n',
        )
        self.assertIn("admin-listen: unix:x:mode=600:y=z: not a valid", str(error))


class UserTests(ServiceCase):
    """A listener that asks who one is."""

    def setUp(self):
        super().setUp()
        self.passwords = Path(self.mktemp()).absolute()
        self.passwords.write_text(PASSWORDS)
        self.passwords.chmod(0o600)
        self.directory = (
            'mount="/a"\nbackend="memory:"\nauthenticate=["basic"]\n'
            f'password-file="{self.passwords}"\n'
            "[[directory.permission]]\nusers=['*']\npath='/'\nmay=['upload']"
        )

    def top(self, endpoint="tcp:9:interface=127.0.0.1", users='["alice"]'):
        return (
            'listen = ["tcp:1:interface=127.0.0.1"]\n'
            f'admin-listen = "{endpoint}"\nadmin-users = {users}\n'
        )

    def test_a_stranger_is_asked_by_the_schemes_of_the_directory(self):
        self.start(self.directory, top=self.top())
        response = self.admin()
        self.assertEqual(response.status, 401)
        self.assertTrue(response["WWW-Authenticate"].startswith("Basic "))

    def test_passwords_on_a_network_without_tls_are_refused(self):
        error = self.assertRaises(
            InvalidSetting, self.start, self.directory, top=self.top("tcp:9")
        )
        self.assertIn("authenticate: basic on tcp:9, which has no TLS", str(error))

    def test_a_reload_changes_who_may_connect(self):
        self.start(self.directory, top=self.top())
        operators = self.service.reloader.admin._operators
        self.reload(self.directory, top=self.top(users='["bob"]'))
        self.assertEqual(operators().users, ("bob",))

    def test_what_decides_who_may_look_changes_with_a_reload_only(self):
        self.start(self.directory, top=self.top())
        admission = self.service.reloader.admin._admission
        before, again = admission(), admission()
        self.assertEqual([*map(id, before)], [*map(id, again)])
        self.reload(self.directory, top=self.top(users='["bob"]'))
        self.assertNotEqual([*map(id, before)], [*map(id, admission())])

    def test_users_are_asked_for_while_the_listener_waits_for_a_restart(self):
        self.start(self.directory, top=self.top())
        self.reload(self.directory, top=self.top().partition("admin-")[0])
        self.assertEqual(self.admin().status, 401)

    def test_nobody_may_connect_when_the_directory_is_gone(self):
        self.start(self.directory, top=self.top())
        self.reload('mount="/"\nbackend="memory:"', top=self.top().partition("adm")[0])
        self.assertEqual(self.admin().status, 403)

    def test_new_passwords_of_the_directory_are_known(self):
        self.start(self.directory, top=self.top())
        before = self.service.reloader.admin._authenticators()
        self.reload(self.directory, top=self.top())
        (after,) = self.service.reloader.admin._authenticators()
        self.assertNotIn(after, before)


class HealthPathTests(ServiceCase):
    """The path for load balancers on the listeners of uploads."""

    def test_the_path_answers_and_may_change(self):
        one = 'mount="/"\nbackend="memory:"'
        self.start(one, top=TOP + 'health-path = "/up"\n')
        self.assertEqual(self.uploads(b"/up").body, b"ready\n")
        self.reload(one, top=TOP + 'health-path = "/"\n')
        self.assert_changed()
        self.assertEqual(self.uploads(b"/").body, b"ready\n")
        self.assertEqual(self.uploads(b"/up").status, 405)
        self.reload(one)
        self.assertEqual(self.uploads(b"/").status, 405)

    def test_a_path_that_is_none_is_refused(self):
        error = self.assertRaises(
            InvalidSetting,
            self.start,
            'mount="/"\nbackend="memory:"',
            top=TOP + 'health-path = "up"\n',
        )
        self.assertIn("health-path: must begin with a slash", str(error))
