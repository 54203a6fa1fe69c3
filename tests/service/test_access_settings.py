"""
Who may use a directory: the keys of the file, permissions and groups.
"""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txbits.access.permissions import Permission
from txbits.errors import InvalidSetting
from txbits.service._permitted import check_permissions, without_effect
from txbits.service._reading import from_file
from txbits.service.options import Options
from txbits.service.settings import Access


class AccessCase(SynchronousTestCase):
    """Reads files with one directory, unless they say otherwise."""

    def read(self, text, base=""):
        self.path = self.mktemp()
        Path(self.path).write_text(text)
        return from_file(self.path, base)

    def directory(self, text, top=""):
        """The only directory of a file."""
        text = f'{top}\n[[directory]]\nmount = "/a"\nbackend = "memory:"\n{text}'
        (directory,) = self.read(text).directories
        return directory

    def complaint(self, text, top=""):
        """What is said, but for the path it begins with."""
        error = self.assertRaises(InvalidSetting, self.directory, text, top)
        return self.line_of(error)

    def line_of(self, error):
        line = str(error)
        self.assertEqual([line], line.splitlines())
        self.assertTrue(line.startswith(f"{self.path}: "), line)
        return line.removeprefix(f"{self.path}: ")


def permission(users, path="/", may=("upload",)):
    """A table of a permission."""
    return (
        f"[[directory.permission]]\nusers = {list(users)!r}\npath = {path!r}\n"
        f"may = {list(may)!r}\n"
    )


class FileTests(AccessCase):
    """What the file becomes."""

    def test_nothing_said_is_open_to_all(self):
        self.assertEqual(self.directory("").access, Access())

    def test_everything_arrives(self):
        access = self.directory(
            """
            authenticate = ["negotiate", "basic", "certificate", "bearer", "header",
                            "link", "ldap:example"]
            session-credentials = "create"
            adopt-anonymous-sessions = true
            allow-plain-passwords = true
            password-file = "/etc/users"
            keytab = "/etc/keytab"
            realms = ["EXAMPLE.TEST"]
            certificate-name = "upn"
            token-file = "/etc/tokens"
            jwt-keys = "https://login.example/keys"
            jwt-issuer = "https://login.example"
            jwt-audience = "uploads"
            jwt-name-claim = "email"
            jwt-groups-claim = "roles"
            user-header = "X-User"
            link-key-file = "/etc/links"
            link-grace = "1h"
            revoked-links = ["anna", "17"]
            """
            + permission(["@desk"], "/", ["upload", "overwrite", "download"])
            + permission(["*"], "/{user}"),
            top='[groups]\ndesk = ["alice", "bob"]\n',
        ).access
        self.assertEqual(
            access,
            Access(
                authenticate=(
                    "negotiate",
                    "basic",
                    "certificate",
                    "bearer",
                    "header",
                    "link",
                    "ldap:example",
                ),
                permissions=(
                    Permission(["@desk"], "/", ["upload", "overwrite", "download"]),
                    Permission(["*"], "/{user}", ["upload"]),
                ),
                groups={"desk": ("alice", "bob")},
                session_credentials="create",
                allow_plain_passwords=True,
                password_file="/etc/users",
                keytab="/etc/keytab",
                realms=("EXAMPLE.TEST",),
                certificate_name="upn",
                token_file="/etc/tokens",
                jwt_keys="https://login.example/keys",
                jwt_issuer="https://login.example",
                jwt_audience="uploads",
                jwt_name_claim="email",
                jwt_groups_claim="roles",
                user_header="X-User",
                link_key_file="/etc/links",
                link_grace=3600,
                revoked_links=("anna", "17"),
            ),
        )

    def test_limits_and_quotas_arrive(self):
        settings = self.directory(
            'session-limit = 7\nmax-sessions = 9\nuser-quota = "1G"\n'
            'directory-quota = "2G"\nadopt-anonymous-sessions = true'
        ).settings
        self.assertEqual(settings.session_limit, 7)
        self.assertEqual(settings.max_sessions, 9)
        self.assertEqual(settings.user_quota, 2**30)
        self.assertEqual(settings.directory_quota, 2**31)
        self.assertTrue(settings.adopt_anonymous_sessions)

    def test_the_top_holds_for_directories_that_do_not_say_otherwise(self):
        one, other = self.read(
            """
            authenticate = ["basic"]
            password-file = "/etc/users"
            [[directory]]
            mount = "/a"
            backend = "memory:"
            [[directory]]
            mount = "/b"
            backend = "memory:"
            authenticate = []
            password-file = ""
            """
        ).directories
        self.assertEqual(one.access.authenticate, ("basic",))
        self.assertEqual(one.access.password_file, "/etc/users")
        self.assertEqual(other.access, Access())

    def test_relative_paths_begin_where_the_server_was_started(self):
        self.path = self.mktemp()
        Path(self.path).write_text(
            '[[directory]]\nmount = "/"\nbackend = "memory:"\n'
            'authenticate = ["basic", "bearer"]\n'
            'password-file = "users"\njwt-keys = "https://login.example/keys"'
        )
        (directory,) = from_file(self.path, "/srv").directories
        self.assertEqual(directory.access.password_file, "/srv/users")
        self.assertEqual(directory.access.jwt_keys, "https://login.example/keys")

    def test_keys_of_schemes_that_are_not_used_are_refused(self):
        for line, scheme in (
            ('password-file = "/x"', "basic"),
            ('keytab = "/x"', "negotiate"),
            ('realms = ["X"]', "negotiate or certificate"),
            ('certificate-name = "dns"', "certificate"),
            ('token-file = "/x"', "bearer"),
            ('jwt-keys = "/x"', "bearer"),
            ('user-header = "X-User"', "header"),
            ('link-key-file = "/x"', "link"),
            ("link-grace = 0", "link"),
            ('revoked-links = ["x"]', "link"),
        ):
            name = line.partition(" ")[0]
            for table, where in ((line, "directory 1 (/a): "), ("", "")):
                self.assertEqual(
                    self.complaint(table, top="" if table else line),
                    f"{where}{name}: requires authenticate with {scheme}",
                )

    def test_values_of_wrong_types_are_refused(self):
        for line, reason in (
            ('authenticate = "basic"', "must be a list of strings"),
            ("password-file = 1", "must be a string"),
            ('certificate-name = "ou"', "must be one of 'cn', 'dns', 'email', 'upn'"),
            ('session-credentials = "all"', "must be one of 'every-packet', 'create'"),
            ("link-grace = -1", "must be at least 0"),
            ("max-sessions = -1", "must be at least 0"),
            ("user-quota = 'big'", "must be a size"),
        ):
            name = line.partition(" ")[0]
            self.assertIn(
                f"directory 1 (/a): {name}: {reason}", self.complaint(line), line
            )


class GroupTests(AccessCase):
    """``[groups]``."""

    def test_what_is_no_table_of_lists_is_refused(self):
        self.assertEqual(
            self.complaint("", top="groups = 1"),
            "groups: must be written as [groups], with lines such as "
            'helpdesk = ["alice", "bob"]',
        )
        for value in ("1", '"alice"', "[1]"):
            self.assertIn(
                "groups: desk: must be a list of users",
                self.complaint("", top=f"[groups]\ndesk = {value}"),
            )

    def test_names_that_no_user_can_have_are_refused(self):
        for line in ('desk = ["a/b"]', '"@desk" = ["a"]', 'desk = ["*"]'):
            self.assertIn(
                "cannot be the name of a user",
                self.complaint("", top=f"[groups]\n{line}"),
            )

    def test_groups_have_no_place_in_a_directory(self):
        self.assertIn("unknown key 'groups'", self.complaint("groups = {}"))


class PermissionTests(AccessCase):
    """``[[directory.permission]]``."""

    def test_what_is_no_array_of_tables_is_refused(self):
        for text in ("permission = 1", "[directory.permission]\nusers = ['*']"):
            self.assertEqual(
                self.complaint(text),
                "directory 1 (/a): permission: must be written as "
                "[[directory.permission]], one table for each permission",
            )

    def test_mistakes_name_the_permission(self):
        start = "directory 1 (/a): permission 2: "
        good = permission(["anonymous"], "/b")
        for text, reason in (
            ("[[directory.permission]]", "users: missing"),
            (
                "[[directory.permission]]\nusers = ['*']\nmay = []\n",
                "path: missing",
            ),
            (
                permission(["*"]) + "who = 1",
                "unknown key 'who'",
            ),
            (
                "[[directory.permission]]\nusers = '*'\npath = '/'\nmay = []\n",
                "users: must be a list of strings, not '*'",
            ),
            (
                "[[directory.permission]]\nusers = ['*']\npath = 1\nmay = []\n",
                "path: must be a string, not 1",
            ),
            (permission(["*"], "a"), "path: must begin with a slash, not 'a'"),
            (permission(["a/b"]), "users: 'a/b' cannot be the name of a user"),
        ):
            self.assertEqual(self.complaint(good + text), f"{start}{reason}")

    def test_permissions_have_no_place_at_the_top(self):
        self.assertIn(
            "unknown key 'permission'", self.complaint("", top="permission = []")
        )


BASIC = 'authenticate = ["basic"]\npassword-file = "/x"\n'
LINK = 'authenticate = ["link"]\nlink-key-file = "/x"\n'
DESK = '[groups]\ndesk = ["alice", "bob"]\nhall = []\n'


class MeaningTests(AccessCase):
    """Permissions that cannot mean what their author meant are refused."""

    def check(self, *permissions, schemes=BASIC, top=""):
        check_permissions(self.directory(schemes + "".join(permissions), top))

    def refusal(self, *permissions, **more):
        error = self.assertRaises(InvalidSetting, self.check, *permissions, **more)
        return self.line_of(error).removeprefix("directory 1 (/a): ")

    def assert_never(self, reason, *permissions, **more):
        """The last permission can never match."""
        self.assertEqual(
            self.refusal(*permissions, **more),
            f"permission {len(permissions)}: can never match: {reason}",
        )

    def assert_shadowed(self, *permissions, **more):
        self.assert_never(
            "for its users and path, an earlier one decides", *permissions, **more
        )

    def test_the_example_of_the_documentation_is_none(self):
        self.check(
            permission(["@desk"], "/", ["upload", "overwrite", "download"]),
            permission(["*"], "/{user}"),
            top=DESK,
        )

    def test_authentication_without_a_permission_for_users(self):
        line = "authenticate: basic requires a [[directory.permission]] for its users"
        self.assertEqual(self.refusal(), line)
        self.assertEqual(self.refusal(permission(["anonymous"])), line)

    def test_links_are_permissions_by_themselves(self):
        self.check(schemes=LINK)
        self.check(permission(["anonymous"], "/b"), schemes=LINK)
        self.assertIn(
            "permission 1: users: 'alice' can never match, because authenticate has "
            "no scheme",
            self.refusal(permission(["alice"]), schemes=LINK),
        )

    def test_permissions_of_users_without_authentication(self):
        for name in ("*", "alice", "@desk"):
            self.assertIn(
                f"permission 1: users: {name!r} can never match",
                self.refusal(permission([name]), schemes="", top=DESK),
            )
        self.check(permission(["anonymous"], "/b"), schemes="")

    def test_one_that_an_earlier_one_takes_the_place_of(self):
        everyone = permission(["*"])
        for later in (
            permission(["*"]),
            permission(["*"], "/{user}"),
            permission(["alice"], "/b"),
            permission(["alice", "bob"], "/b", []),
            permission(["@desk"], "/b"),
        ):
            self.assert_shadowed(everyone, later, top=DESK)
        self.assert_shadowed(permission(["*"], "/{user}"), permission(["*"], "/{user}"))
        self.assert_shadowed(
            permission(["*"], "/{user}"), permission(["alice"], "/alice/x")
        )
        self.assert_shadowed(permission(["@desk"]), permission(["bob"]), top=DESK)
        self.assert_shadowed(
            permission(["alice"]),
            permission(["bob"]),
            permission(["@desk"], "/b"),
            top=DESK,
        )
        self.assert_shadowed(
            permission(["*"]),
            permission(["anonymous"], "/b", ["download"]),
            permission(["anonymous"], "/b/c", ["download"]),
        )

    def test_one_that_can_still_match(self):
        for earlier, later in (
            (permission(["alice"]), permission(["*"])),
            (permission(["*"], "/b"), permission(["*"])),
            (permission(["*"], "/{user}"), permission(["*"])),
            (permission(["*"], "/{user}"), permission(["alice"], "/b")),
            (permission(["*"], "/{user}"), permission(["*"], "/b/{user}")),
            (permission(["alice"]), permission(["@desk"])),
            (permission(["alice"]), permission(["alice", "carol"])),
            (permission(["*"]), permission(["anonymous"], "/", ["download"])),
        ):
            self.check(earlier, later, top=DESK)

    def test_one_whose_users_nobody_is(self):
        known = permission(["alice"])
        self.assert_never("it has no users", known, permission([]))
        self.assert_never(
            "its groups are empty", known, permission(["@hall"]), top=DESK
        )
        self.assert_never(
            "anonymous clients have no {user}",
            known,
            permission(["anonymous"], "/{user}"),
        )
        self.check(known, permission(["@hall", "bob"]), top=DESK)

    def test_an_unknown_group(self):
        self.assertEqual(
            self.refusal(permission(["alice", "@dsk"]), top=DESK),
            "permission 1: users: there is no group 'dsk' in [groups]",
        )
        for schemes in (
            'authenticate = ["bearer"]\ntoken-file = "/x"\n',
            'authenticate = ["ldap:example"]\n',
        ):
            self.check(permission(["@staff"]), schemes=schemes)

    def test_a_name_with_the_realm_that_kerberos_takes_off(self):
        kerberos = 'authenticate = ["negotiate", "link"]\nkeytab = "/x"\n'
        self.assertEqual(
            self.refusal(permission(["alice@EXAMPLE.TEST"]), schemes=kerberos),
            "permission 1: users: 'alice@EXAMPLE.TEST' can never match; write the "
            "name without its realm",
        )
        self.check(permission(["alice@example.test"]))

    def test_anonymous_uploads_where_users_may_upload(self):
        known = permission(["*"], "/b/{user}")
        for path in ("/", "/b", "/b/"):
            self.assertEqual(
                self.refusal(known, permission(["anonymous"], path)),
                "permission 2: anonymous clients could upload where permission 1 "
                "names users, who would then never be asked who they are; separate "
                "the paths",
            )
        self.assertIn(
            "permission 1: anonymous clients could upload where permission 1",
            self.refusal(permission(["*", "anonymous"])),
        )
        self.assertIn(
            "permission 1: anonymous clients could upload where permission 2",
            self.refusal(permission(["anonymous"], "/b/c"), permission(["*"])),
        )
        self.assertIn(
            "permission 1: anonymous clients could upload where permission 2",
            self.refusal(
                permission(["anonymous"], "/bob"),
                permission(["alice", "bob"], "/{user}"),
            ),
        )

    def test_anonymous_uploads_elsewhere(self):
        self.check(permission(["*"], "/b"), permission(["anonymous"], "/c"))
        self.check(permission(["*"], "/{user}"), permission(["anonymous"], "/drop"))
        self.check(permission(["alice"], "/{user}"), permission(["anonymous"], "/bob"))
        self.check(permission(["*"]), permission(["anonymous"], "/", ["download"]))
        self.check(permission(["*"], "/", ["download"]), permission(["anonymous"], "/"))
        self.check(
            permission(["anonymous"], "/b", []),
            permission(["*"], "/b"),
            permission(["anonymous"]),
        )

    def test_what_the_directory_does_not_allow_is_told(self):
        text = BASIC + permission(["*"], may=["upload", "overwrite", "download"])
        self.assertEqual(
            without_effect(self.directory(text)),
            [
                f"{self.path}: directory 1 (/a): permission 1: {action!r} has no "
                f"effect without {key}"
                for action, key in (
                    ("overwrite", "allow-overwrites"),
                    ("download", "allow-downloads"),
                )
            ],
        )
        bounds = "allow-overwrites = true\nallow-downloads = true\n"
        self.assertEqual(without_effect(self.directory(bounds + text)), [])


class DocumentationTests(AccessCase):
    """The examples of ``docs/howto/authenticate.md``."""

    def test_each_is_accepted(self):
        page = Path(__file__).parents[2] / "docs" / "howto" / "authenticate.md"
        examples = re.findall("^```toml\n(.*?)^```$", page.read_text(), re.M | re.S)
        self.assertGreaterEqual(len(examples), 4)
        for example in examples:
            with self.subTest(example):
                if "[[directory]]" in example:
                    (directory,) = self.read(example).directories
                else:
                    top = '[groups]\nauditors = ["carol"]\n'
                    directory = self.directory(BASIC + example, top)
                check_permissions(directory)


class OptionTests(SynchronousTestCase):
    """The command line has what needs no permissions."""

    def parsed(self, *arguments):
        options = Options()
        options.parseOptions(arguments)
        (directory,) = options["configuration"].directories
        return directory

    def test_upload_links_and_limits(self):
        directory = self.parsed(
            *("--authenticate", "link", "--link-key-file", "/etc/links"),
            *("--link-grace", "1h", "--allow-plain-passwords"),
            *("--max-sessions", "9", "--user-quota", "1G", "--directory-quota", "2G"),
        )
        self.assertEqual(
            directory.access,
            Access(
                authenticate=("link",),
                link_key_file="/etc/links",
                link_grace=3600,
                allow_plain_passwords=True,
            ),
        )
        self.assertEqual(directory.settings.max_sessions, 9)
        self.assertEqual(directory.settings.user_quota, 2**30)
        self.assertEqual(directory.settings.directory_quota, 2**31)

    def test_a_key_without_its_scheme_is_refused(self):
        error = self.assertRaises(
            SystemExit, self.parsed, "--link-key-file", "/etc/links"
        )
        self.assertEqual(
            error.code,
            "txbits: --link-key-file: requires --authenticate with link",
        )

    def test_plain_passwords_may_be_those_of_any_scheme(self):
        self.assertTrue(
            self.parsed("--allow-plain-passwords").access.allow_plain_passwords
        )

    def test_all_schemes_are_listed(self):
        output = StringIO()
        with redirect_stdout(output):
            error = self.assertRaises(
                SystemExit, Options().parseOptions, ["--help-authenticators"]
            )
        self.assertEqual(error.code, 0)
        lines = [line for line in output.getvalue().splitlines() if line[0] != " "]
        ours = ["basic", "bearer", "certificate", "header", "link", "negotiate"]
        self.assertEqual([one for one in lines if one in ours], ours)
