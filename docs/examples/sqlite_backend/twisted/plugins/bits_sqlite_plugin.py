"""
Adds ``--backend sqlite:PATH`` to txbits.

twistd imports this module at each start, with or without txbits. It therefore imports
the backend itself only when needed.
"""

from attrs import frozen
from zope.interface import implementer

from txbits.errors import InvalidSetting
from txbits.interfaces import BackendContext, IBackend, IBackendParser


@implementer(IBackendParser)
@frozen
class SQLiteBackendParser:
    """``sqlite:PATH``"""

    prefix: str = "sqlite"
    format: str = "sqlite:PATH"
    help: str = "Keeps staged and published uploads in the SQLite file PATH."

    def parse_backend(
        self, context: BackendContext, *args: str, **kwargs: str
    ) -> IBackend:
        """
        Create the backend.

        :param args: The path of the file.
        """
        from bits_sqlite import SQLiteBackend

        if len(args) != 1 or not args[0] or kwargs:
            raise InvalidSetting("exactly one path is required: sqlite:PATH")
        return SQLiteBackend(args[0], context.reactor, context.fsync)


sqlite = SQLiteBackendParser()
