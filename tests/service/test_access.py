"""
From settings to what stands before a directory, and what is refused at the start.
"""

import os
from pathlib import Path

import bcrypt
from twisted.internet.defer import succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txbits.access.basic import BasicAuthenticator
from txbits.access.header import HeaderAuthenticator
from txbits.access.links import LinkAuthenticator
from txbits.access.permissions import Permission, Permissions
from txbits.errors import AccessDenied, InvalidSetting
from txbits.interfaces import IAuthenticator, Identity
from txbits.service._access import Shared, adopt, gate_of
from txbits.service.settings import Access, Configuration, Directory
from txbits.sessions import Settings
from txbits.web import Gate

WHERE = "file: directory 1 (/): "
LOOPBACK = "tcp:8080:interface=127.0.0.1"
EVERYONE = (Permission(["*"], "/", ["upload"]),)


def hash_line(name, password):
    """A line of a password file, with the cheapest hash."""
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    return f"{name}:{hashed}\n"


class GateCase(SynchronousTestCase):
    """Builds gates for one directory."""

    def setUp(self):
        self.shared = Shared(MemoryReactorClock())

    def file(self, content, mode=0o600):
        path = self.mktemp()
        Path(path).write_text(content)
        os.chmod(path, mode)
        return path

    def gate(self, *schemes, listen=(LOOPBACK,), proxies=(), where=WHERE, **access):
        access.setdefault("permissions", EVERYONE if schemes else ())
        settings = access.pop("settings", Settings())
        directory = Directory(
            where=where,
            settings=settings,
            access=Access(authenticate=schemes, **access),
        )
        configuration = Configuration(
            directories=(directory,), listen=listen, trusted_proxies=proxies
        )
        return gate_of(directory, configuration, self.shared)

    def complaint(self, *schemes, **more):
        error = self.assertRaises(InvalidSetting, self.gate, *schemes, **more)
        line = str(error)
        self.assertEqual([line], line.splitlines())
        where = more.get("where", WHERE)
        self.assertTrue(line.startswith(where), line)
        return line.removeprefix(where)


class GateTests(GateCase):
    """``gate_of``."""

    def test_without_settings_it_is_open(self):
        self.assertTrue(self.gate().is_open)

    def test_permissions_of_anonymous_clients_need_no_authenticator(self):
        gate = self.gate(permissions=(Permission(["anonymous"], "/a", ["upload"]),))
        self.assertEqual(gate.authenticators, ())
        self.assertIsInstance(gate.policy, Permissions)

    def test_links_need_no_permission(self):
        keys = self.file("x" * 32 + "\n")
        gate = self.gate("link", permissions=(), link_key_file=keys)
        (authenticator,) = gate.authenticators
        self.assertIsInstance(authenticator, LinkAuthenticator)
        # And nobody else has one.
        refused = gate.policy.check(Identity("alice"), ("a",), "Ping")
        self.failureResultOf(refused, AccessDenied)

    def test_an_expired_link_serves_as_long_as_a_session_can_last(self):
        keys = self.file("x" * 32 + "\n")
        for given, grace in ((None, 60), (5, 5)):
            gate = self.gate(
                "link",
                permissions=(),
                link_key_file=keys,
                link_grace=given,
                settings=Settings(session_timeout=60),
            )
            self.assertEqual(gate.authenticators[0]._grace, grace)

    def test_guesses_of_passwords_count_for_all_directories(self):
        users = self.file(hash_line("alice", "secret"))
        one, other = (
            self.gate("basic", password_file=users).authenticators[0] for _ in range(2)
        )
        self.assertIsNot(one, other)
        self.assertIs(one._checks, other._checks)

    def test_authenticators_are_asked_in_the_order_of_the_settings(self):
        gate = self.gate(
            "header",
            "basic",
            proxies=("10.0.0.1",),
            password_file=self.file(hash_line("alice", "secret")),
            session_credentials="create",
        )
        self.assertEqual(
            [type(one) for one in gate.authenticators],
            [HeaderAuthenticator, BasicAuthenticator],
        )
        self.assertEqual(gate.session_credentials, "create")
        self.assertIsInstance(gate.policy, Permissions)


class RefusalTests(GateCase):
    """What is refused at the start, in one line."""

    def test_unknown_schemes(self):
        for scheme in ("digest", "ntlm", "Basic", "ldap:example"):
            line = self.complaint(scheme)
            name = scheme.partition(":")[0]
            self.assertTrue(
                line.startswith(f"authenticate: unknown scheme {name!r}; the schemes")
            )
        self.assertIn("did you mean 'basic'?", self.complaint("basik"))

    def test_a_scheme_of_ours_has_no_arguments(self):
        self.assertIn("authenticate: ", self.complaint("header:X-User"))

    def test_a_scheme_given_twice(self):
        self.assertEqual(
            self.complaint("header", "header", proxies=("unix",)),
            "authenticate: 'header' is given twice",
        )

    def test_a_scheme_without_its_file(self):
        asking = ("https:443:certificate=a:key=b:client-ca=c",)
        for scheme, what, more in (
            ("basic", "password-file", {}),
            ("bearer", "token-file or jwt-keys", {}),
            ("link", "link-key-file", {"permissions": ()}),
            ("negotiate", "keytab", {}),
            (
                "negotiate",
                "realms, those whose users can log in",
                {"keytab": "/etc/keytab"},
            ),
        ):
            self.assertEqual(
                self.complaint(scheme, listen=asking, **more),
                f"authenticate: {scheme} requires {what}",
            )

    def test_keys_of_an_issuer_without_the_issuer(self):
        keys = {"jwt_keys": "https://login.example/keys"}
        start = "authenticate: bearer with jwt-keys requires"
        self.assertEqual(self.complaint("bearer", **keys), f"{start} jwt-issuer")
        self.assertEqual(
            self.complaint("bearer", jwt_issuer="x", **keys), f"{start} jwt-audience"
        )
        self.assertEqual(
            self.complaint("bearer", token_file="x", jwt_audience="y"),
            "authenticate: jwt-issuer and jwt-audience require jwt-keys",
        )

    def test_files_of_other_schemes_that_cannot_be_used(self):
        missing, public = self.mktemp(), self.file("x" * 64, 0o644)
        for scheme, key, more in (
            ("bearer", "token-file", {}),
            ("link", "link-key-file", {"permissions": ()}),
            ("negotiate", "keytab", {"realms": ("EXAMPLE.TEST",)}),
        ):
            name = key.replace("-", "_")
            for path, reason in (
                (missing, "cannot be read"),
                (public, "is accessible to every user"),
            ):
                line = self.complaint(scheme, **{name: path}, **more)
                self.assertTrue(line.startswith(f"{key}: {path} {reason}"), line)

    def test_a_secret_that_cannot_be_used(self):
        good = hash_line("alice", "secret")
        for path, reason in (
            (self.mktemp(), "cannot be read"),
            (self.file(""), "is empty"),
            (self.file(good, 0o604), "is accessible to every user of this machine"),
            (self.file("alice:secret\n"), "is not one of bcrypt"),
        ):
            line = self.complaint("basic", password_file=path)
            self.assertTrue(line.startswith(f"password-file: {path}"), line)
            self.assertIn(reason, line)
            self.assertNotIn("secret", line.replace(path, ""))

    def test_secrets_that_the_network_could_read(self):
        path = self.file(hash_line("alice", "secret"))
        for listen in (
            ("tcp:8080",),
            ("https:443:certificate=a:key=b", "tcp:80"),
            ("haproxy:tcp:8080",),
            ("systemd:domain=INET:index=0",),
        ):
            self.assertEqual(
                self.complaint("basic", password_file=path, listen=listen),
                f"authenticate: basic on {listen[-1]}, which has no TLS, lets the "
                "network read secrets; listen on https:, or on loopback, or, behind a "
                "proxy that has TLS, set allow-plain-passwords",
            )
            self.gate(
                "basic", password_file=path, listen=listen, allow_plain_passwords=True
            )

    def test_secrets_that_the_network_cannot_read(self):
        path = self.file(hash_line("alice", "secret"))
        self.gate(
            "basic",
            password_file=path,
            listen=("ssl:443", "unix:/run/txbits.sock", LOOPBACK, "haproxy:ssl:444"),
        )

    def test_names_in_a_header_come_from_trusted_proxies_only(self):
        self.assertEqual(
            self.complaint("header"),
            "authenticate: header requires trusted-proxies, the only ones who may "
            "name users",
        )
        # A name is no secret.
        self.gate("header", proxies=("10.0.0.1",), listen=("tcp:8080",))

    def test_a_header_that_cannot_be_one(self):
        self.assertIn(
            "user-header: ",
            self.complaint("header", proxies=("unix",), user_header="X User"),
        )

    def test_certificates_need_a_listener_that_asks(self):
        for listen in (("tcp:8080",), ("ssl:443",), ("https:443:certificate=a:key=b",)):
            self.assertEqual(
                self.complaint("certificate", listen=listen),
                "authenticate: certificate requires a listener that asks for one, "
                "such as https:443:certificate=FILE:key=FILE:client-ca=FILE",
            )

    def test_permissions_that_are_a_mistake(self):
        self.assertEqual(
            self.complaint("header", proxies=("unix",), permissions=()),
            "authenticate: header requires a [[directory.permission]] for its users",
        )

    def test_on_a_command_line_there_are_no_permissions(self):
        self.assertEqual(
            self.complaint("basic", where="--", permissions=()),
            "authenticate: basic requires a [[directory.permission]] for its users, "
            "which only a file for --config has",
        )


@implementer(IAuthenticator)
class Remembering:
    """Has something that outlives a reload."""

    scheme = "told"
    strength = 1

    def __init__(self, *known):
        self.known = known

    def adopt(self, previous):
        self.known += previous.known

    def challenge(self, credentials):
        return None

    def authenticate(self, credentials):
        return succeed(None)


class OtherRemembering(Remembering):
    """Of another class."""


class AdoptTests(SynchronousTestCase):
    """``adopt``."""

    def test_each_goes_on_where_one_of_its_class_has_left_off(self):
        old = [Remembering(1), OtherRemembering(2), Remembering(3)]
        new = [Remembering(), Remembering(), Remembering(), OtherRemembering()]
        adopt(Gate(new), Gate(old))
        self.assertEqual([one.known for one in new], [(1,), (3,), (), (2,)])

    def test_what_remembers_nothing_is_left_alone(self):
        adopt(Gate([HeaderAuthenticator()]), Gate([HeaderAuthenticator()]))
