"""
What endpoint strings tell: who can reach a listener, and who can read along.
"""

from twisted.trial.unittest import SynchronousTestCase

from txbits.service._listeners import listening


class ListeningTests(SynchronousTestCase):
    """``listening``."""

    def test_tls_cannot_be_read(self):
        for endpoint in (
            "ssl:443:privateKey=key.pem",
            "https:443:certificate=a.pem:key=b.pem",
            "haproxy:ssl:443",
            r"https:443:interface=\:\:",
        ):
            self.assertFalse(listening(endpoint).is_open, endpoint)
            self.assertTrue(listening(endpoint).is_secure, endpoint)

    def test_what_only_this_machine_reaches_cannot_be_read(self):
        for endpoint in (
            "tcp:8080:interface=127.0.0.1",
            "tcp:8080:127.0.0.2",
            "tcp:8080:interface=localhost",
            r"tcp6:8080:interface=\:\:1",
            r"tcp:8080:interface=\:\:1",
            r"tcp6:8080:50:\:\:1",
            "haproxy:tcp:8080:interface=127.0.0.1",
            "unix:/run/txbits.sock",
            "unix:/run/txbits.sock:mode=660",
            "systemd:domain=UNIX:index=0",
            "systemd:UNIX:index=0",
        ):
            self.assertFalse(listening(endpoint).is_open, endpoint)
            self.assertTrue(listening(endpoint).is_local, endpoint)

    def test_everything_else_is_taken_for_open(self):
        for endpoint in (
            "tcp:8080",
            "tcp:8080:interface=",
            "tcp:8080:interface=0.0.0.0",
            "tcp:8080:interface=10.0.0.1",
            "tcp:8080:interface=uploads.example",
            "tcp6:8080",
            r"tcp6:8080:interface=\:\:",
            "haproxy:tcp:8080",
            "haproxy:haproxy:tcp:8080",
            "systemd:domain=INET:index=0",
            "systemd:domain=INET6:name=web",
            "onion:80",
            "something",
            "tcp:8080\\",
        ):
            self.assertTrue(listening(endpoint).is_open, endpoint)

    def test_a_socket_with_a_mode_is_not_for_everyone(self):
        for endpoint in (
            "unix:/run/admin:mode=600",
            "unix:/run/admin:mode=0660",
            "unix:/run/admin:660",
            "systemd:domain=UNIX:index=0",
        ):
            self.assertTrue(listening(endpoint).is_private, endpoint)
        for endpoint in (
            "unix:/run/admin",
            "unix:/run/admin:mode=666",
            "unix:/run/admin:mode=602",
            "unix:/run/admin:mode=user",
        ):
            self.assertFalse(listening(endpoint).is_private, endpoint)
            self.assertTrue(listening(endpoint).is_file, endpoint)
        for endpoint in (
            "tcp:1:interface=127.0.0.1",
            "https:443:certificate=a:key=b:client-ca=c",
            "systemd:domain=INET:index=0",
        ):
            self.assertFalse(listening(endpoint).is_private, endpoint)
            self.assertFalse(listening(endpoint).is_file, endpoint)

    def test_certificates_are_asked_for_by_https_with_a_ca(self):
        asking = "https:443:certificate=a:key=b:client-ca=ca.pem"
        self.assertTrue(listening(asking).asks_certificate)
        self.assertTrue(listening(f"haproxy:{asking}").asks_certificate)
        for endpoint in ("https:443:certificate=a:key=b", "ssl:443", "tcp:80"):
            self.assertFalse(listening(endpoint).asks_certificate, endpoint)
