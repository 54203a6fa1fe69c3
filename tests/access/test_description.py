"""
Authenticators of third parties, as plugins.
"""

from __future__ import annotations

import os

from attrs import define
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

import twisted.plugins
from tests.web.support import Authenticator
from txbits.access.description import (
    authenticator_from_description,
    available_authenticators,
)
from txbits.errors import InvalidSetting
from txbits.interfaces import IAuthenticatorParser, Identity


@implementer(IPlugin, IAuthenticatorParser)
@define
class _Parser:
    """Makes an authenticator that knows one name."""

    scheme: str = "always"
    format: str = "always:NAME[:scheme=NAME]"
    help: str = "For tests."

    def parse_authenticator(self, reactor, name, scheme="always"):  # type: ignore[override]
        if name == "none":
            return None
        if name == "bug":
            raise TypeError("a bug inside")
        if name == "bad":
            raise ValueError("no such name")
        return Authenticator(Identity(name, f"{scheme} of {reactor}"))


class DescriptionTests(SynchronousTestCase):
    """From a string to an authenticator."""

    def make(self, text):
        return authenticator_from_description(text, "reactor", [_Parser()])

    def assert_refused(self, text, pattern):
        with self.assertRaisesRegex(InvalidSetting, pattern) as caught:
            self.make(text)
        self.assertNotIn("\n", str(caught.exception))

    def test_reactor_and_arguments_reach_the_parser(self):
        self.assertEqual(
            self.make(r"always:a\:b:scheme=x").answer, Identity("a:b", "x of reactor")
        )

    def test_an_unknown_scheme_is_refused_with_the_known_formats(self):
        for text in ("pam", "pam:", "pam:login"):
            self.assert_refused(text, r"'pam'; the schemes of plugins are: always:NAME")

    def test_what_is_no_description_is_refused(self):
        for text in ("", ":", ":x", "a=b:"):
            self.assert_refused(text, "is not the description of an authenticator")

    def test_wrong_arguments_are_refused_with_the_format(self):
        for text in ("always", "always:a:x:b", "always:a:size=2", "always:bad"):
            self.assert_refused(text, r"write always:NAME\[:scheme=NAME\]")

    def test_what_is_no_authenticator_is_refused(self):
        self.assert_refused("always:none", "the plugin of 'always' made no")

    def test_a_bug_in_a_parser_is_not_taken_for_a_wrong_argument(self):
        with self.assertRaisesRegex(TypeError, "a bug inside"):
            self.make("always:bug")


class AvailableTests(SynchronousTestCase):
    """The installed plugins."""

    def test_those_of_third_parties_are_found(self):
        folder = self.mktemp()
        os.mkdir(folder)
        path = os.path.join(folder, "txbits_test_authenticators.py")
        with open(path, "w") as file:
            file.write(
                "from tests.access.test_description import _Parser\n"
                "two = _Parser('zz-test')\none = _Parser('yy-test')\n"
            )
        twisted.plugins.__path__.append(folder)
        self.addCleanup(twisted.plugins.__path__.remove, folder)
        schemes = [one.scheme for one in available_authenticators()]
        self.assertEqual(schemes, sorted(schemes))
        self.assertEqual(schemes[-2:], ["yy-test", "zz-test"])
        made = authenticator_from_description("yy-test:alice", None)
        self.assertEqual(made.answer.name, "alice")
