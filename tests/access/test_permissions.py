"""
Permissions: the first one that names the user and contains the path decides.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txbits.access.permissions import Permission, Permissions
from txbits.errors import AccessDenied, InvalidSetting
from txbits.interfaces import Grant, IAccessPolicy, Identity

ALICE, BOB = Identity("alice", "basic"), Identity("bob", "negotiate")

UPLOADS = ("Ping", "Create-Session", "Fragment", "Close-Session", "Cancel-Session")


class PermissionTests(SynchronousTestCase):
    """What a permission may say."""

    def complaint(self, users, path, may):
        error = self.assertRaises(InvalidSetting, Permission, users, path, may)
        self.assertEqual(len(str(error).splitlines()), 1)
        return str(error)

    def test_a_path_is_split_and_decoded(self):
        for path, segments in (
            ("/", ()),
            ("/a", ("a",)),
            ("/a/", ("a",)),
            ("/a%20b/{user}", ("a b", "{user}")),
            ("/%7Buser%7D", ("{user}",)),
            ("/\u00e4/%C3%A4", ("\u00e4", "\u00e4")),
        ):
            with self.subTest(path):
                self.assertEqual(Permission(["*"], path, []).segments, segments)

    def test_a_path_that_is_none_is_refused(self):
        for path in ("", "a", "//", "/a//b", "/./a", "/..", "/a%2Fb", "/a%00", "/%ff"):
            with self.subTest(path):
                self.assertTrue(self.complaint(["*"], path, []).startswith("path: "))
        for path in ("/a?b", "/#a"):
            self.assertIn("without ? and #", self.complaint(["*"], path, []))

    def test_a_segment_is_the_name_of_the_user_or_has_no_braces(self):
        for path in ("/u-{user}", "/{group}", "/{", "/a}"):
            with self.subTest(path):
                self.assertIn("{user}", self.complaint(["*"], path, []))

    def test_names_that_no_user_can_have_are_refused(self):
        for name in (
            "",
            "@",
            "a/b",
            "a\\b",
            "..",
            "a:b",
            "a\nb",
            "@*",
            "@@a",
            "link/x",
        ):
            with self.subTest(name):
                self.assertTrue(self.complaint([name], "/", []).startswith("users: "))

    def test_unknown_actions_are_refused(self):
        self.assertEqual(
            self.complaint(["*"], "/", ["write"]),
            "may: must be a list of some of 'upload', 'overwrite', 'download', not "
            "'write'",
        )

    def test_who_may_overwrite_may_upload(self):
        self.assertEqual(
            self.complaint(["*"], "/", ["overwrite"]),
            "may: 'overwrite' requires 'upload'",
        )


class PolicyTests(SynchronousTestCase):
    """``Permissions``."""

    def policy(self, *permissions, **groups):
        return Permissions([Permission(*one) for one in permissions], groups)

    def permits(self, policy, identity, path, packet="Create-Session"):
        """The grant; ``None`` if it is refused."""
        destination = tuple(path.strip("/").split("/"))
        result = policy.check(identity, destination, packet)
        if result.called and isinstance(result.result, Grant):
            return self.successResultOf(result)
        self.failureResultOf(result, AccessDenied)
        return None

    def test_it_provides_the_interface(self):
        self.assertTrue(verifyObject(IAccessPolicy, self.policy()))

    def test_without_permissions_nothing_is_permitted(self):
        for packet in (*UPLOADS, "Reply", "GET", "HEAD"):
            for identity in (ALICE, None):
                self.assertIsNone(self.permits(self.policy(), identity, "/a", packet))

    def test_packets_and_replies_need_upload_and_reading_needs_download(self):
        uploads = self.policy((["alice"], "/", ["upload"]))
        downloads = self.policy((["alice"], "/", ["download"]))
        for packet in (*UPLOADS, "Reply"):
            self.assertIsNotNone(self.permits(uploads, ALICE, "/a", packet))
            self.assertIsNone(self.permits(downloads, ALICE, "/a", packet))
        for packet in ("GET", "HEAD"):
            self.assertIsNone(self.permits(uploads, ALICE, "/a", packet))
            self.assertIsNotNone(self.permits(downloads, ALICE, "/a", packet))

    def test_only_overwrite_lets_files_be_replaced(self):
        for may, overwrite in ((["upload"], False), (["upload", "overwrite"], True)):
            policy = self.policy((["alice"], "/", may))
            self.assertEqual(
                self.permits(policy, ALICE, "/a"), Grant(overwrite=overwrite)
            )

    def test_the_first_that_matches_decides_whatever_it_allows(self):
        policy = self.policy(
            (["alice"], "/private", []),
            (["bob"], "/private", ["download"]),
            (["*"], "/", ["upload"]),
        )
        self.assertIsNone(self.permits(policy, ALICE, "/private/a"))
        self.assertIsNone(self.permits(policy, BOB, "/private/a"))
        self.assertIsNotNone(self.permits(policy, BOB, "/private/a", "GET"))
        self.assertIsNotNone(self.permits(policy, ALICE, "/a"))
        self.assertIsNotNone(self.permits(policy, Identity("carol"), "/private/a"))

    def test_a_refusal_says_which_one_decided(self):
        policy = self.policy(
            (["alice"], "/a", ["download"]), (["bob"], "/b", ["upload"])
        )
        for identity, path, packet, reason in (
            (ALICE, "a", "Ping", "permission 1 does not allow upload"),
            (BOB, "b", "GET", "permission 2 does not allow download"),
            (ALICE, "b", "Ping", "no permission names the user and contains the path"),
        ):
            refused = policy.check(identity, (path, "x"), packet)
            error = self.failureResultOf(refused, AccessDenied).value
            self.assertEqual(str(error), reason)

    def test_a_path_contains_itself_and_what_is_below_it(self):
        policy = self.policy((["*"], "/cases/17", ["upload"]))
        for path in ("/cases/17", "/cases/17/a", "/cases/17/a/b"):
            self.assertIsNotNone(self.permits(policy, ALICE, path), path)
        for path in ("/cases/170/a", "/cases/a", "/Cases/17/a", "/a"):
            self.assertIsNone(self.permits(policy, ALICE, path), path)

    def test_a_segment_for_the_user_is_the_name_exactly(self):
        policy = self.policy((["*"], "/home/{user}/in", ["upload"]))
        self.assertIsNotNone(self.permits(policy, ALICE, "/home/alice/in/a"))
        for path in ("/home/bob/in/a", "/home/Alice/in/a", "/home/{user}/in/a"):
            self.assertIsNone(self.permits(policy, ALICE, path), path)

    def test_a_way_out_of_a_path_is_not_in_it(self):
        policy = self.policy((["*"], "/{user}", ["upload"]))
        for path in ("/alice/../bob/a", "/alice/./a", "/alice/..\\bob", "/alice/a\0"):
            self.assertIsNone(self.permits(policy, ALICE, path), path)

    def test_groups_are_those_of_the_settings_and_of_the_credentials(self):
        policy = self.policy((["@desk"], "/", ["upload"]), desk=["alice"])
        self.assertIsNotNone(self.permits(policy, ALICE, "/a"))
        self.assertIsNone(self.permits(policy, BOB, "/a"))
        member = Identity("bob", "bearer", frozenset({"desk"}))
        self.assertIsNotNone(self.permits(policy, member, "/a"))

    def test_a_group_is_no_user_of_its_name(self):
        policy = self.policy((["@alice"], "/", ["upload"]), alice=["bob"])
        self.assertIsNone(self.permits(policy, ALICE, "/a"))

    def test_everyone_who_is_known_is_not_anonymous(self):
        known = self.policy((["*"], "/", ["upload"]))
        unknown = self.policy((["anonymous"], "/", ["upload"]))
        self.assertIsNotNone(self.permits(known, ALICE, "/a"))
        self.assertIsNone(self.permits(known, None, "/a"))
        self.assertIsNone(self.permits(unknown, ALICE, "/a"))
        self.assertIsNotNone(self.permits(unknown, None, "/a"))

    def test_anonymous_clients_have_no_path_of_the_user(self):
        policy = self.policy((["anonymous", "*"], "/{user}", ["upload"]))
        for path in ("/{user}/a", "/None/a", "/a"):
            self.assertIsNone(self.permits(policy, None, path))
        self.assertIsNotNone(self.permits(policy, ALICE, "/alice/a"))


_NAMES = ("alice", "bob", "carol")
_TOKENS = (*_NAMES, "@desk", "@hall", "*", "anonymous")
_GROUPS = {"desk": ("alice", "bob"), "hall": ()}
_SEGMENTS = st.sampled_from([*_NAMES, "x"])
_PERMISSIONS = st.builds(
    Permission,
    st.lists(st.sampled_from(_TOKENS), min_size=1, max_size=3),
    st.lists(st.sampled_from(["{user}", "alice", "x"]), max_size=3).map(
        lambda parts: "/" + "/".join(parts)
    ),
    st.sampled_from(
        [[], ["upload"], ["upload", "overwrite"], ["download"], ["upload", "download"]]
    ),
)


def expected(permissions, identity, destination, action):
    """Whether it is permitted, written as the documentation explains it."""
    for one in permissions:
        tokens = ["anonymous"]
        if identity is not None:
            mine = {g for g, members in _GROUPS.items() if identity.name in members}
            tokens = ["*", identity.name, *(f"@{g}" for g in mine | identity.groups)]
        elif "{user}" in one.path:
            continue
        if not set(tokens) & set(one.users):
            continue
        path = (
            one.path if identity is None else one.path.replace("{user}", identity.name)
        )
        where = "/" + "/".join(destination)
        if path in ("/", where) or where.startswith(path + "/"):
            return action in one.may
    return False


class ModelTests(SynchronousTestCase):
    """Against the sentence of the documentation."""

    @given(
        st.lists(_PERMISSIONS, max_size=5),
        st.none()
        | st.builds(
            Identity,
            st.sampled_from(_NAMES),
            groups=st.frozensets(st.sampled_from(["hall", "other"])),
        ),
        st.lists(_SEGMENTS, min_size=1, max_size=4).map(tuple),
        st.sampled_from([("GET", "download"), ("Fragment", "upload")]),
    )
    def test_the_first_match_decides(self, permissions, identity, destination, what):
        packet, action = what
        result = Permissions(permissions, _GROUPS).check(identity, destination, packet)
        if expected(permissions, identity, destination, action):
            self.assertIsInstance(self.successResultOf(result), Grant)
        else:
            self.failureResultOf(result, AccessDenied)
