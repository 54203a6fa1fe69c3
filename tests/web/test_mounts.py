"""
Which virtual directory gets a URL, and which path below it that directory sees.
"""

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource, getChildForRequest
from twisted.web.test.requesthelper import DummyRequest

from txbits.web.mounts import Mounts


class Leaf(Resource):
    isLeaf = True


class MountsTests(SynchronousTestCase):
    """The longest prefix wins."""

    def setUp(self):
        self.at = {}

    def mounted(self, *prefixes):
        for prefix in prefixes:
            self.at[tuple(filter(None, prefix.split(b"/")))] = Leaf()
        self.root = Mounts(self.at)

    def found(self, path):
        """The prefix of the directory that is found, and the path that it sees."""
        request = DummyRequest(path.split(b"/"))
        request.prepath = []
        resource = getChildForRequest(self.root, request)
        for prefix, leaf in self.at.items():
            if leaf is resource:
                self.assertEqual(request.prepath, list(prefix))
                return b"/".join(prefix), request.postpath
        return None

    def test_the_root_gets_everything(self):
        self.mounted(b"/")
        self.assertEqual(self.found(b"a/b"), (b"", [b"a", b"b"]))
        self.assertEqual(self.found(b""), (b"", [b""]))

    def test_a_page_comes_before_the_mounts_but_is_one_path_only(self):
        self.mounted(b"/", b"/a")
        page, root = Leaf(), Leaf()
        self.root.replace(self.at, {(b"a", b"b"): page, (b"",): root})
        for path, resource in ((b"a/b", page), (b"", root)):
            request = DummyRequest(path.split(b"/"))
            self.assertIs(getChildForRequest(self.root, request), resource)
        self.assertEqual(self.found(b"a/b/c"), (b"a", [b"b", b"c"]))
        self.assertEqual(self.found(b"a/b/"), (b"a", [b"b", b""]))

    def test_nothing_outside_a_mount_is_found(self):
        self.mounted(b"/logs")
        for path in (b"", b"log", b"logs2/x", b"x/logs", b"/logs/x"):
            self.assertIsNone(self.found(path), path)

    def test_the_longest_prefix_wins(self):
        self.mounted(b"/", b"/logs", b"/logs/old")
        self.assertEqual(self.found(b"x"), (b"", [b"x"]))
        self.assertEqual(self.found(b"logs/x"), (b"logs", [b"x"]))
        self.assertEqual(self.found(b"logs/old/x"), (b"logs/old", [b"x"]))
        self.assertEqual(self.found(b"logs/older/x"), (b"logs", [b"older", b"x"]))

    def test_a_path_that_turns_away_from_a_deeper_mount_goes_to_the_shorter_one(self):
        self.mounted(b"/", b"/a/b/c")
        self.assertEqual(self.found(b"a/b/x"), (b"", [b"a", b"b", b"x"]))
        self.assertEqual(self.found(b"a"), (b"", [b"a"]))

    def test_a_mount_sees_its_own_url_as_an_empty_path(self):
        self.mounted(b"/logs")
        self.assertEqual(self.found(b"logs"), (b"logs", []))
        self.assertEqual(self.found(b"logs/"), (b"logs", [b""]))

    def test_mounts_compose_with_a_tree_above_them(self):
        self.mounted(b"/a")
        above = Resource()
        above.putChild(b"up", self.root)
        request = DummyRequest([b"up", b"a", b"x"])
        request.prepath = []
        self.assertIs(getChildForRequest(above, request), self.at[(b"a",)])
        self.assertEqual(request.prepath, [b"up", b"a"])
        self.assertEqual(request.postpath, [b"x"])
