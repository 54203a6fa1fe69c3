"""
The contract of backends: sessions are made, where they may be.
"""

from __future__ import annotations

from uuid import UUID

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from txbits.errors import (
    DestinationExists,
    DestinationForbidden,
    DestinationIsDirectory,
    ParentMissing,
)
from txbits.interfaces import IBackend, IUploadSession
from txbits.testing._contract import ContractBase, contract

#: Destinations that no backend may store under.
HOSTILE: list[tuple[str, ...]] = [
    (".",),
    ("..",),
    ("..", "x"),
    ("a", "..", "..", "x"),
    ("", "x"),
    ("a", "", "x"),
    ("/etc/passwd",),
    ("../x",),
    ("a/b",),
    ("..\\x",),
    ("C:", "x"),
    ("name.txt:stream",),
    ("a\0b",),
    ("a\nb",),
    ("NUL",),
    ("com1.txt",),
    ("a", "Lpt9 .x", "b"),
    ("\udc80",),
    ("x" * 256,),
    ("ü" * 128,),
    (".bits-sessions", "x"),
    (".BITS-Sessions", "closed", "x"),
    ("a", "BITS-Sessions", "Replies"),
]


class CreationContract(ContractBase):
    """What ``create()`` promises."""

    @contract
    async def test_the_backend_provides_its_interface(self) -> None:
        verifyObject(IBackend, self.make_backend())

    @contract
    async def test_methods_of_a_backend_return_deferreds(self) -> None:
        backend = self.make_backend()
        starting = backend.start()
        self.assertIsInstance(starting, Deferred)
        await starting
        one = self.new_id(backend)
        for call in (
            lambda: self._create(backend, one, ("name.txt",)),
            lambda: backend.find(one),
            backend.sessions,
            lambda: backend.recalls_close(one, ("name.txt",), None),
            lambda: backend.clean_up(0.0),
            backend.stop,
        ):
            result = call()
            self.assertIsInstance(result, Deferred)
            await result

    def _create(
        self,
        backend: IBackend,
        session_id: UUID,
        destination: tuple[str, ...],
        overwrite: bool = False,
        create_directories: bool = True,
    ) -> Deferred[IUploadSession]:
        return backend.create(
            session_id,
            destination,
            owner=None,
            content_name=None,
            overwrite=overwrite,
            create_directories=create_directories,
        )

    @contract
    async def test_a_fresh_store_is_empty(self) -> None:
        await self.assert_nothing_left(await self.started())

    @contract
    async def test_an_existing_file_is_refused_unless_overwriting(self) -> None:
        backend = await self.started()
        await self.put(backend, ("name.txt",), b"theirs")
        await self.fails(
            DestinationExists,
            self._create(backend, self.new_id(backend), ("name.txt",)),
        )
        await self.assert_nothing_left(backend)
        await self._create(backend, self.new_id(backend), ("name.txt",), overwrite=True)
        self.assertEqual(await self.file_at(backend, ("name.txt",)), b"theirs")

    @contract
    async def test_a_directory_is_refused(self) -> None:
        backend = await self.started()
        await self.put(backend, ("a", "b", "c"), b"")
        for destination in ((), ("",), ("a",), ("a", ""), ("a", "b"), ("new", "")):
            for overwrite in (False, True):
                await self.fails(
                    DestinationIsDirectory,
                    self._create(backend, self.new_id(backend), destination, overwrite),
                )
        await self.assert_nothing_left(backend)

    @contract
    async def test_hostile_destinations_are_forbidden(self) -> None:
        backend = await self.started()
        for destination in HOSTILE:
            await self.fails(
                DestinationForbidden,
                self._create(
                    backend, self.new_id(backend), destination, overwrite=True
                ),
            )
        await self.assert_nothing_left(backend)

    @contract
    async def test_a_missing_parent_is_refused_unless_it_may_be_made(self) -> None:
        backend = await self.started()
        await self._create(backend, self.new_id(backend), ("a", "b", "c"))
        if self.has_directories:
            await self.fails(
                ParentMissing,
                self._create(
                    backend,
                    self.new_id(backend),
                    ("a", "b", "c"),
                    create_directories=False,
                ),
            )
        await self.put(backend, ("a", "b", "other"), b"")
        await self._create(
            backend, self.new_id(backend), ("a", "b", "c"), create_directories=False
        )

    @contract
    async def test_a_file_is_no_parent(self) -> None:
        backend = await self.started()
        await self.put(backend, ("file",), b"")
        for create_directories in (False, True):
            for destination in (("file", "x"), ("file", "x", "y")):
                await self.fails(
                    ParentMissing,
                    self._create(
                        backend,
                        self.new_id(backend),
                        destination,
                        create_directories=create_directories,
                    ),
                )

    @contract
    async def test_names_of_all_languages_are_stored(self) -> None:
        backend = await self.started()
        for name in ("名前.bin", "e\u0301", "a b%2F+&=?#;~", "🛰" * 63, "x" * 255):
            session = await self.complete(backend, (name,), name.encode())
            await session.publish(overwrite=False, create_directories=False)
            await session.release()
            self.assertEqual(await self.file_at(backend, (name,)), name.encode())
        await self.assert_nothing_left(backend)

    @contract
    async def test_creations_may_overlap(self) -> None:
        backend = await self.started()
        ids = [self.new_id(backend) for _ in range(10)]
        made = [self._create(backend, one, (str(one),)) for one in ids]
        listing = backend.sessions()
        for one in reversed(made):
            await one
        await listing
        found = [backend.find(one) for one in ids]
        self.assertEqual([(await one).session_id for one in found], ids)
