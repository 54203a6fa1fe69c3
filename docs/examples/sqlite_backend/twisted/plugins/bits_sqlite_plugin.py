"""
Makes ``--backend sqlite:PATH`` known to txbits.

twistd imports this whenever it starts, with or without txbits, so the backend itself is
imported only when one is made.
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
    help: str = "Keeps uploads in the SQLite file PATH, staged and published ones."

    def parse_backend(
        self, context: BackendContext, *args: str, **kwargs: str
    ) -> IBackend:
        """
        Make the backend.

        :param args: The file, and nothing else.
        """
        from bits_sqlite import SQLiteBackend

        if len(args) != 1 or not args[0] or kwargs:
            raise InvalidSetting("one file has to be named, and no more: sqlite:PATH")
        return SQLiteBackend(args[0], context.reactor, context.fsync)


sqlite = SQLiteBackendParser()
