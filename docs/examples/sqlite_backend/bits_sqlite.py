"""
A backend of txbits that stores uploads in an SQLite file.

This is an example for authors of backends. It uses only :mod:`txbits.interfaces`,
:mod:`txbits.errors` and :func:`txbits.backends.checked_segments`, and passes
:class:`txbits.testing.BackendContract`. With this folder on ``PYTHONPATH``::

    twistd -n txbits --backend sqlite:/srv/uploads.sqlite

SQLite blocks, so the backend uses it in a separate thread. Each method below is one
transaction. Each write of an upload adds a row to ``chunks``. Publishing adds a row to
``files``, which names the upload, in one step. As in most stores other than file
systems, ``logs/today.log`` does not require a directory ``logs``. If this file exists,
the backend treats ``logs`` as a directory, so that you can later copy all files to a
disk.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar
from uuid import UUID

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from txbits.backends import checked_segments
from txbits.clocks import wall_of
from txbits.errors import (
    BackendError,
    DestinationExists,
    DestinationIsDirectory,
    NoSuchSession,
    OutOfSpace,
    ParentMissing,
    StagedDataLost,
)
from txbits.interfaces import (
    ANY_OWNER,
    AnyOwner,
    IBackend,
    IUploadSession,
    IWriter,
    SessionSummary,
)

P = ParamSpec("P")
T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY, destination TEXT NOT NULL, owner TEXT NOT NULL,
    content_name TEXT NOT NULL,
    total INTEGER, last_progress REAL NOT NULL,
    published INTEGER NOT NULL DEFAULT 0, releasing INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS chunks (
    upload TEXT NOT NULL, start INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (upload, start)
);
CREATE TABLE IF NOT EXISTS files (destination TEXT PRIMARY KEY, upload TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS closes (
    id TEXT PRIMARY KEY, destination TEXT NOT NULL, owner TEXT NOT NULL,
    at REAL NOT NULL
);
"""

#: SQLite's setting for each value of ``fsync``. In WAL mode, a commit always survives a
#: killed process. With FULL, it and all earlier ones survive a crash of the machine.
_SYNCHRONOUS = {"close": "NORMAL", "fragment": "FULL", "never": "OFF"}


@define(eq=False)
class _Database:
    """The file, the one thread that uses it, and the clock."""

    path: str
    reactor: Any
    fsync: Literal["close", "fragment", "never"]
    _pool: ThreadPool = field(factory=lambda: ThreadPool(0, 1, "bits-sqlite"))
    _connection: sqlite3.Connection | None = None

    @property
    def connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise BackendError(f"{self.path} is not open")
        return self._connection

    def now(self) -> float:
        return wall_of(self.reactor)()

    def start(self) -> Deferred[None]:
        self._pool.start()
        return self._in_thread(self._open).addErrback(self._stop_pool)

    def stop(self) -> Deferred[None]:
        if not self._pool.started:
            return succeed(None)
        return self._in_thread(self._close).addBoth(self._stop_pool)

    def _stop_pool(self, result: T) -> T:
        self._pool.stop()
        return result

    def run(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Deferred[T]:
        """
        Do something in a transaction, in the thread.

        :returns: A Deferred that fires with what *work* returns, when that is
            committed. It fails with :class:`~txbits.errors.BackendError`.
        """
        return self._in_thread(lambda: self._transaction(work, *args, **kwargs))

    def run_durably(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Deferred[T]:
        """
        The same, for what an Ack of Close-Session promises.
        """

        def in_full() -> T:
            if self.fsync == "never":
                return self._transaction(work, *args, **kwargs)
            self.connection.execute("PRAGMA synchronous=FULL")
            try:
                return self._transaction(work, *args, **kwargs)
            finally:
                self._set_synchronous()

        return self._in_thread(in_full)

    # In the thread

    def _transaction(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        with self.connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            return work(connection, *args, **kwargs)

    def _open(self) -> None:
        # The pool has at most one thread at a time.
        self._connection = sqlite3.connect(
            self.path, timeout=1, isolation_level=None, check_same_thread=False
        )
        try:
            # This refuses a second server on the same file, and needs less locking.
            self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._set_synchronous()
            self._connection.executescript(_SCHEMA)
            self._transaction(lambda connection: None)
        except sqlite3.Error:
            self._close()
            raise

    def _set_synchronous(self) -> None:
        self.connection.execute(f"PRAGMA synchronous={_SYNCHRONOUS[self.fsync]}")

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _in_thread(self, work: Callable[[], T]) -> Deferred[T]:
        def translated() -> T:
            try:
                return work()
            except sqlite3.Error as error:
                full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
                kind = OutOfSpace if full else BackendError
                remedy = "; free some space" if full else ""
                raise kind(f"{self.path}: {error}{remedy}") from error

        return deferToThreadPool(
            IReactorFromThreads(self.reactor), self._pool, translated
        )


def _text(value: object) -> str:
    """
    Write what a client sent as text that SQLite takes, be it no valid Unicode.
    """
    return json.dumps(value)


def _check_place(
    connection: sqlite3.Connection, destination: tuple[str, ...], overwrite: bool
) -> None:
    """Refuse a destination to which nothing can be published now."""
    name = "/".join(destination)
    parents = ["/".join(destination[:end]) for end in range(1, len(destination))]
    for parent in parents:
        if _upload_at(connection, parent) is not None:
            raise ParentMissing(f"{parent} is a file")
    # The character after the slash is the zero.
    below = connection.execute(
        "SELECT 1 FROM files WHERE destination > ? AND destination < ?",
        (f"{name}/", f"{name}0"),
    )
    if below.fetchone() is not None:
        raise DestinationIsDirectory(name)
    if not overwrite and _upload_at(connection, name) is not None:
        raise DestinationExists(name)


def _upload_at(connection: sqlite3.Connection, name: str) -> str | None:
    """Return the upload that was published under a name."""
    row = connection.execute(
        "SELECT upload FROM files WHERE destination = ?", (name,)
    ).fetchone()
    return None if row is None else str(row[0])


def _held(connection: sqlite3.Connection, upload: str) -> int:
    """Count the stored bytes of an upload."""
    row = connection.execute(
        "SELECT coalesce(sum(length(data)), 0) FROM chunks WHERE upload = ?", (upload,)
    ).fetchone()
    return int(row[0])


@implementer(IWriter)
@define(eq=False)
class SQLiteWriter:
    """Appends rows. Committed rows are stored."""

    _session: SQLiteSession
    _closed: bool = False

    def write(self, data: bytes) -> Deferred[None]:
        session = self._session
        if self._closed:
            return fail(BackendError("the writer is closed"))
        if session.offset + len(data) > (session.total or 0):
            return fail(BackendError("more bytes than the file has"))
        now = session.database.now()

        def append(connection: sqlite3.Connection) -> None:
            # Only if the session has not been released in the meantime.
            key = session.key
            stands = connection.execute(
                "UPDATE sessions SET last_progress = ? WHERE id = ? AND NOT releasing",
                (now, key),
            )
            if not stands.rowcount:
                raise BackendError(f"session {key} has been released")
            connection.execute(
                "INSERT INTO chunks VALUES (?, ?, ?)", (key, session.offset, data)
            )

        def appended(_: None) -> None:
            session.offset += len(data)
            session.last_progress = now

        return session.database.run(append).addCallback(appended)

    def close(self) -> Deferred[None]:
        self._closed = True
        # Fires after a write in progress.
        return self._session.database.run(lambda connection: None)


@implementer(IUploadSession)
@define(eq=False)
class SQLiteSession:
    """One row of ``sessions``."""

    database: _Database
    session_id: UUID
    destination: tuple[str, ...]
    owner: str | None
    content_name: str | None
    last_progress: float
    total: int | None = None
    published: bool = False
    releasing: bool = False
    offset: int = 0
    in_doubt: bool = False
    _writer: SQLiteWriter | None = None

    @property
    def key(self) -> str:
        return str(self.session_id)

    def open_writer(self, total: int) -> Deferred[IWriter]:
        def prepare(connection: sqlite3.Connection) -> int:
            connection.execute(
                "UPDATE sessions SET total = ? WHERE id = ?", (total, self.key)
            )
            held = _held(connection, self.key)
            if held < self.offset:
                raise StagedDataLost(f"{held} of {self.offset} bytes are left")
            return held

        def prepared(held: int) -> IWriter:
            self.total, self.offset = total, held
            self._writer = SQLiteWriter(self)
            return self._writer

        return self.database.run(prepare).addCallback(prepared)

    def publish(self, *, overwrite: bool, create_directories: bool) -> Deferred[None]:
        name = "/".join(self.destination)

        def put(connection: sqlite3.Connection) -> None:
            held = _held(connection, self.key)
            if held < self.offset:
                raise StagedDataLost(f"{held} of {self.offset} bytes are left")
            if held != self.total:
                raise BackendError(f"{held} bytes have come, of {self.total}")
            _check_place(connection, self.destination, overwrite)
            connection.execute(
                "DELETE FROM chunks WHERE upload = ?", (_upload_at(connection, name),)
            )
            connection.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?)", (name, self.key)
            )
            connection.execute(
                "UPDATE sessions SET published = 1 WHERE id = ?", (self.key,)
            )

        def done(_: None) -> None:
            self.published = True

        if self.published:
            return succeed(None)
        return self.database.run_durably(put).addCallback(done)

    def release(self, *, remember: bool = False) -> Deferred[None]:
        close = (
            self.key,
            _text(self.destination),
            _text(self.owner),
            self.database.now(),
        )

        def mark(connection: sqlite3.Connection) -> None:
            if remember:
                connection.execute(
                    "INSERT OR REPLACE INTO closes VALUES (?, ?, ?, ?)", close
                )
            connection.execute(
                "UPDATE sessions SET releasing = 1 WHERE id = ?", (self.key,)
            )

        def remove(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM chunks WHERE upload = :id AND NOT EXISTS "
                "(SELECT 1 FROM files WHERE upload = :id)",
                {"id": self.key},
            )
            connection.execute("DELETE FROM sessions WHERE id = ?", (self.key,))

        self.releasing = True
        if self._writer is not None:
            self._writer.close()
        run = self.database.run_durably if remember else self.database.run
        # Two transactions: if the second one fails, the first one is stored.
        return run(mark).addCallback(lambda _: self.database.run(remove))


@implementer(IBackend)
class SQLiteBackend:
    """
    Keeps uploads in an SQLite file.

    :param path: The file; it is made if it is missing.
    :param reactor: Tells the time, and takes results from the thread.
    :param fsync: As in :class:`~txbits.interfaces.BackendContext`.
    """

    def __init__(
        self,
        path: str,
        reactor: Any,
        fsync: Literal["close", "fragment", "never"] = "close",
    ) -> None:
        self._database = _Database(path, reactor, fsync)

    def start(self) -> Deferred[None]:
        return self._database.start()

    def stop(self) -> Deferred[None]:
        return self._database.stop()

    def create(
        self,
        session_id: UUID,
        destination: tuple[str, ...],
        *,
        owner: str | None,
        content_name: str | None,
        overwrite: bool,
        create_directories: bool,
    ) -> Deferred[IUploadSession]:
        try:
            checked_segments(destination)
        except BackendError as error:
            return fail(error)
        session = SQLiteSession(
            self._database,
            session_id,
            destination,
            owner,
            content_name,
            self._database.now(),
        )

        def insert(connection: sqlite3.Connection) -> IUploadSession:
            _check_place(connection, destination, overwrite)
            connection.execute(
                "INSERT INTO sessions (id, destination, owner, content_name, "
                "last_progress) VALUES (?, ?, ?, ?, ?)",
                (
                    session.key,
                    _text(destination),
                    _text(owner),
                    _text(content_name),
                    session.last_progress,
                ),
            )
            return session

        return self._database.run(insert)

    def find(self, session_id: UUID) -> Deferred[IUploadSession]:
        def select(connection: sqlite3.Connection) -> IUploadSession:
            row = connection.execute(
                "SELECT destination, owner, content_name, last_progress, total, "
                "published, releasing FROM sessions WHERE id = ?",
                (str(session_id),),
            ).fetchone()
            if row is None:
                raise NoSuchSession(str(session_id))
            destination, owner, content_name, *rest = row
            last_progress, total, published, releasing = rest
            return SQLiteSession(
                self._database,
                session_id,
                tuple(json.loads(destination)),
                json.loads(owner),
                json.loads(content_name),
                last_progress,
                total,
                bool(published),
                bool(releasing),
                _held(connection, str(session_id)),
            )

        return self._database.run(select)

    def sessions(self) -> Deferred[Sequence[SessionSummary]]:
        def select(connection: sqlite3.Connection) -> Sequence[SessionSummary]:
            rows = connection.execute(
                "SELECT id, owner, last_progress, published OR releasing, total"
                " FROM sessions"
            )
            return [
                SessionSummary(
                    UUID(key), json.loads(owner), last, bool(ending), size=total or 0
                )
                for key, owner, last, ending, total in rows
            ]

        return self._database.run(select)

    def recalls_close(
        self,
        session_id: UUID,
        destination: tuple[str, ...],
        owner: str | AnyOwner | None,
    ) -> Deferred[bool]:
        def select(connection: sqlite3.Connection) -> bool:
            wanted = "SELECT 1 FROM closes WHERE id = ? AND destination = ?"
            which = [str(session_id), _text(destination)]
            if owner is not ANY_OWNER:
                wanted += " AND owner = ?"
                which.append(_text(owner))
            row = connection.execute(wanted, which).fetchone()
            return row is not None

        return self._database.run(select)

    def clean_up(self, closed_before: float) -> Deferred[None]:
        def delete(connection: sqlite3.Connection) -> None:
            # Transactions leave no partial data, so there are only old closes.
            connection.execute("DELETE FROM closes WHERE at < ?", (closed_before,))
            # The clock was set back. Do not keep these until that time.
            connection.execute("UPDATE closes SET at = ? WHERE at > ?", (now, now))

        now = self._database.now()
        return self._database.run(delete)

    def contents(self, *destination: str) -> Deferred[bytes | None]:
        """
        Return the content of a published file.

        :returns: A Deferred that fires with the bytes, or with ``None`` if there is no
            such file.
        """

        def select(connection: sqlite3.Connection) -> bytes | None:
            upload = _upload_at(connection, "/".join(destination))
            if upload is None:
                return None
            chunks = connection.execute(
                "SELECT data FROM chunks WHERE upload = ? ORDER BY start", (upload,)
            )
            return b"".join(data for (data,) in chunks)

        return self._database.run(select)
