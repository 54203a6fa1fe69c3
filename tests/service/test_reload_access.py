"""
SIGHUP: users, secrets and permissions are read again.
"""

import os
from pathlib import Path

import bcrypt
from twisted.logger import LogLevel

from tests.service.test_reload import BY_REFERENCE, ReloadCase
from txbits.access.basic import Passwords

TOP = 'listen = ["unix:/run/txbits"]\n'
HASHES = {
    name: bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    for name in ("alice", "bob")
}


class AccessReloadCase(ReloadCase):
    """A directory with a password file."""

    def setUp(self):
        super().setUp()
        self.users = Path(self.mktemp()).absolute()
        self.set_users("alice")

    def set_users(self, *names):
        self.users.touch(0o600)
        self.users.write_text("".join(f"{one}:{HASHES[one]}\n" for one in names))

    def directory(self, *permissions, backend="memory:", more=""):
        tables = "".join(
            f"[[directory.permission]]\nusers = ['{user}']\npath = '/'\n"
            "may = ['upload', 'download']\n"
            for user in permissions or ("*",)
        )
        return (
            f"mount = '/a'\nbackend = '{backend}'\nauthenticate = ['basic']\n"
            f"password-file = '{self.users}'\n{more}\n{tables}"
        )

    @property
    def gate(self):
        (served,) = self.service.directories
        return served.resource.gate

    @property
    def passwords(self) -> Passwords:
        return self.gate.authenticators[0]._passwords

    def begin(self, *permissions):
        self.start(self.directory(*permissions), top=TOP)

    def again(self, *permissions, **more):
        self.reload(self.directory(*permissions, **more), top=TOP)


class SecretTests(AccessReloadCase):
    """Files with secrets."""

    def test_they_are_read_again_though_the_settings_are_the_same(self):
        self.begin()
        self.assertIsNone(self.passwords.stored("bob"))
        self.set_users("bob")
        self.again()
        self.assert_changed("no changes; credentials of /a read again")
        self.assertIsNotNone(self.passwords.stored("bob"))
        self.assertIsNone(self.passwords.stored("alice"))

    def test_one_that_cannot_be_used_changes_nothing(self):
        self.begin()
        gate = self.gate
        where = f"{self.path}: directory 1 (/a): password-file: {self.users}"
        os.chmod(self.users, 0o644)
        self.again("alice")
        self.assert_nothing_changed(
            f"{where} is accessible to every user of this machine; run chmod o-rw on it"
        )
        self.users.unlink()
        self.again("alice")
        self.assert_nothing_changed(
            f"{where} cannot be read: No such file or directory"
        )
        self.assertIs(self.gate, gate)

    def test_what_is_remembered_stays(self):
        self.begin()
        checks = self.gate.authenticators[0]._checks
        self.again("alice")
        self.assertIs(self.gate.authenticators[0]._checks, checks)


class PermissionTests(AccessReloadCase):
    """Permissions."""

    def test_a_change_is_one_of_the_directory(self):
        self.begin()
        policy = self.gate.policy
        self.again("alice")
        self.assert_changed("changed /a; credentials of /a read again")
        self.assertIsNot(self.gate.policy, policy)

    def test_a_mistake_changes_nothing(self):
        self.begin()
        gate = self.gate
        self.again("*", "alice")
        self.assert_nothing_changed(
            f"{self.path}: directory 1 (/a): permission 2: can never match: for its "
            "users and path, an earlier one decides"
        )
        self.assertIs(self.gate, gate)

    def test_what_the_directory_does_not_allow_is_told_when_it_changes(self):
        self.begin()
        line = (
            f"{self.path}: directory 1 (/a): permission 1: 'download' has no effect "
            "without allow-downloads"
        )
        self.assertEqual(self.lines(LogLevel.warn), [line])
        self.again("alice")
        self.assertEqual(self.lines(LogLevel.warn), [line])
        self.again("alice")
        self.assertEqual(self.lines(LogLevel.warn), [])

    def test_they_do_not_wait_for_a_restart_with_the_other_settings(self):
        root = Path(self.mktemp()).absolute()
        self.begin()
        policy = self.gate.policy
        self.again("alice", backend=f"disk:{root}", more=BY_REFERENCE)
        self.assertIn(
            f"restart required: {self.path}: directory 1 (/a): all other settings: "
            "still unchanged",
            self.lines(LogLevel.warn),
        )
        self.assertIsNot(self.gate.policy, policy)
        (served,) = self.service.directories
        self.assertEqual(served.directory.access.permissions[0].users, ("alice",))


class ListenerTests(AccessReloadCase):
    """What counts is where the server listens, and where it will."""

    def test_secrets_that_the_network_could_read_are_refused(self):
        self.begin()
        self.reload(self.directory(), top='listen = ["tcp:1"]\n')
        self.assert_nothing_changed(
            f"{self.path}: directory 1 (/a): authenticate: basic on tcp:1, which has "
            "no TLS, lets the network read secrets; listen on https:, or on loopback, "
            "or, behind a proxy that has TLS, set allow-plain-passwords"
        )

    def test_a_listener_that_is_safe_after_a_restart_is_not_safe_yet(self):
        self.start("mount = '/a'\nbackend = 'memory:'", top='listen = ["tcp:1"]\n')
        self.reload(self.directory(), top=TOP)
        (line,) = self.lines(LogLevel.error)
        self.assertIn("basic on tcp:1, which has no TLS", line)
