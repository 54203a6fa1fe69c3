"""Which worker has a session, by its id."""

from __future__ import annotations

from collections import Counter
from uuid import RFC_4122, UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txbits._workers import MOST_WORKERS, Worker, new_session_id, slot_of

SLOTS = st.integers(0, MOST_WORKERS - 1)


class SessionIdTests(SynchronousTestCase):
    @given(SLOTS)
    def test_id_tells_the_slot(self, slot: int) -> None:
        session_id = new_session_id(slot)
        self.assertEqual(slot_of(session_id), slot)
        self.assertEqual(session_id.variant, RFC_4122)

    @given(st.uuids(version=4))
    def test_id_of_a_server_without_workers_is_of_slot_0(self, old: UUID) -> None:
        self.assertEqual(slot_of(old), 0)

    def test_id_of_slot_0_is_like_one_without_workers(self) -> None:
        self.assertEqual(new_session_id(0).version, 4)

    @given(st.integers(0, 15), st.integers(0, 3), st.integers(0, (1 << 128) - 1))
    def test_only_ids_of_one_kind_have_a_slot(
        self, version: int, variant: int, number: int
    ) -> None:
        number &= ~(0xF << 76 | 0b11 << 62)
        one = UUID(int=number | version << 76 | variant << 62)
        slot = one.bytes[15] if one.version == 8 else 0
        self.assertEqual(slot_of(one), slot)

    def test_nothing_but_slot_and_version_is_the_same_in_two_ids(self) -> None:
        # Each of the other bits takes both values in 200 ids, but for one chance in
        # 2**192.
        made = [new_session_id(5).int for _ in range(200)]
        fixed = sum(len({one >> bit & 1 for one in made}) == 1 for bit in range(128))
        self.assertEqual(fixed, 8 + 4 + 2)


class WorkerTests(SynchronousTestCase):
    @given(SLOTS, st.integers(1, MOST_WORKERS))
    def test_each_slot_is_one_workers(self, slot: int, count: int) -> None:
        owners = [one for one in range(count) if Worker(one, count).owns(slot)]
        found = Worker(0, count).owner_of(new_session_id(slot))
        self.assertEqual(owners, [found])

    @given(st.integers(1, MOST_WORKERS))
    def test_each_worker_owns_its_own_slot(self, count: int) -> None:
        self.assertTrue(
            all(Worker(number, count).owns(number) for number in range(count))
        )

    def test_one_worker_owns_everything(self) -> None:
        owners = Counter(Worker().owner_of(uuid4()) for _ in range(10))
        self.assertEqual(owners, {0: 10})

    def test_number_beyond_the_count_is_an_error(self) -> None:
        self.assertRaises(ValueError, Worker, 2, 2)
        self.assertRaises(ValueError, Worker, -1, 2)
        self.assertRaises(ValueError, Worker, 0, 0)
        self.assertRaises(ValueError, Worker, 0, MOST_WORKERS + 1)
