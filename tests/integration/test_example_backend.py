"""
The backend of ``docs/examples/sqlite_backend`` keeps the contract of backends.

It is loaded from its file, since it stands outside the package.
"""

import sqlite3
from importlib.util import module_from_spec, spec_from_file_location
from uuid import uuid4

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from tests.integration.programs import ROOT
from txbits.testing import BackendContract
from txbits.testing.backend import contract

_FILE = ROOT / "docs" / "examples" / "sqlite_backend" / "bits_sqlite.py"
_SPEC = spec_from_file_location("bits_sqlite", _FILE)
bits_sqlite = module_from_spec(_SPEC)
_SPEC.loader.exec_module(bits_sqlite)


class SQLiteContractTests(BackendContract, TestCase):
    """The contract, in the backend's own thread."""

    has_directories = False

    def make_backend(self):
        return bits_sqlite.SQLiteBackend(self.mktemp(), reactor)

    def reopen_backend(self, backend):
        database = backend._database
        if database._connection is not None:
            # The kernel takes a killed process's locks.
            database._connection.close()
        return bits_sqlite.SQLiteBackend(database.path, reactor)

    def published(self, backend, destination):
        return backend.contents(*destination)

    def place(self, backend, destination, data):
        def put(connection):
            upload = str(uuid4())
            connection.execute("INSERT INTO chunks VALUES (?, 0, ?)", (upload, data))
            connection.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?)",
                ("/".join(destination), upload),
            )
            connection.execute(
                "DELETE FROM chunks WHERE upload NOT IN (SELECT upload FROM files) "
                "AND upload NOT IN (SELECT id FROM sessions)"
            )

        return backend._database.run(put)

    def leftovers(self, backend):
        def look(connection):
            sessions = connection.execute("SELECT id FROM sessions")
            chunks = connection.execute(
                "SELECT upload FROM chunks WHERE upload NOT IN "
                "(SELECT upload FROM files)"
            )
            return [row[0] for row in [*sessions, *chunks]]

        return backend._database.run(look)

    @contract
    async def test_bytes_that_were_taken_away_are_noticed(self):
        backend = await self.started()
        session = await self.complete(backend)
        await backend._database.run(lambda db: db.execute("DELETE FROM chunks"))
        await self.fails(
            bits_sqlite.StagedDataLost,
            session.publish(overwrite=False, create_directories=False),
        )
        await self.fails(bits_sqlite.StagedDataLost, session.open_writer(5))

    @contract
    async def test_a_full_disk_is_out_of_space_and_what_came_before_is_kept(self):
        backend = await self.started()
        session = await self.new(backend)
        writer = await session.open_writer(10_000_001)
        await writer.write(b"x")
        await backend._database.run(
            lambda db: db.execute("PRAGMA max_page_count=50").fetchall()
        )
        await self.fails(bits_sqlite.OutOfSpace, writer.write(bytes(10_000_000)))
        await writer.close()
        self.assertEqual(session.offset, 1)
        self.assertEqual((await backend.find(session.session_id)).offset, 1)

    @contract
    async def test_a_file_that_another_backend_uses_is_refused_in_one_line(self):
        backend = await self.started()
        again = bits_sqlite.SQLiteBackend(backend._database.path, reactor)
        error = await self.fails(bits_sqlite.BackendError, again.start())
        self.assertIn("locked", str(error))
        threads = again._database._pool.threads
        self.assertEqual([one for one in threads if one.is_alive()], [])

    @contract
    async def test_what_is_no_database_is_refused_in_one_line(self):
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("something else entirely" * 100)
        backend = bits_sqlite.SQLiteBackend(path, reactor)
        error = await self.fails(bits_sqlite.BackendError, backend.start())
        self.assertIn(path, str(error))
        self.assertEqual(len(str(error).splitlines()), 1)

    @contract
    async def test_published_files_can_be_read_with_sqlite_alone(self):
        backend = await self.started()
        session = await self.complete(backend, ("a", "b"))
        await session.publish(overwrite=False, create_directories=False)
        backend._database._connection.close()
        with sqlite3.connect(backend._database.path) as connection:
            rows = connection.execute(
                "SELECT data FROM files JOIN chunks USING (upload) "
                "WHERE destination = 'a/b' ORDER BY start"
            ).fetchall()
        connection.close()
        self.assertEqual(rows, [(b"whole",)])
