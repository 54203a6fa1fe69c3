"""
Adds ``authenticate = ["sqlite:PATH"]`` to txbits.

twistd imports this module at each start, with or without txbits. It therefore imports
the checker only when needed.
"""

import os
from typing import Any

from attrs import frozen
from zope.interface import implementer

from txbits.errors import InvalidSetting
from txbits.interfaces import IAuthenticator, IAuthenticatorParser


@implementer(IAuthenticatorParser)
@frozen
class SQLiteUsersParser:
    """``sqlite:PATH``"""

    scheme: str = "sqlite"
    format: str = "sqlite:PATH"
    help: str = "Checks names and passwords by the table users of an SQLite database."

    def parse_authenticator(
        self, reactor: Any, *args: str, **kwargs: str
    ) -> IAuthenticator:
        """
        Make the authenticator.

        :param args: The path of the database.
        """
        from bits_users import DatabaseChecker

        from txbits.access.checker import CheckerAuthenticator

        if len(args) != 1 or kwargs:
            raise InvalidSetting("exactly one path is required: sqlite:PATH")
        (path,) = args
        if not os.access(path, os.R_OK):
            raise InvalidSetting(f"{path} cannot be read")
        checker = DatabaseChecker(path, reactor)
        return CheckerAuthenticator(reactor, checker, scheme=self.scheme)


users = SQLiteUsersParser()
