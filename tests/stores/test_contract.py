"""The contract suite finds what is wrong with a store: each broken one here fails the law that it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from penstock.core.ports import Change, Decide, Store, View
from penstock.model import StreamInfo
from penstock.stores.memory import MemoryStore
from penstock.testing import StoreContract, StoreHarness, store_machine


class Racing(MemoryStore):
    """Decides, and applies what was decided a moment later."""

    async def commit(self, name: str, decide: Decide, **options: object) -> Change:
        def decide_early(view: View) -> Change:
            return decide(view)

        early = await super().commit(name, lambda view: decide_early(view)._replace(duplicate=True), **options)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        return await super().commit(name, lambda _: early._replace(duplicate=False), **options)  # type: ignore[arg-type]


class Rewriting(MemoryStore):
    """Writes duplicates again."""

    async def commit(self, name: str, decide: Decide, **options: object) -> Change:
        return await super().commit(name, lambda view: decide(view)._replace(duplicate=False), **options)  # type: ignore[arg-type]


class Forgetful(MemoryStore):
    """Does not keep the state of producers."""

    async def commit(self, name: str, decide: Decide, **options: object) -> Change:
        return await super().commit(name, lambda view: decide(view)._replace(producer=None), **options)  # type: ignore[arg-type]


class Coarse(MemoryStore):
    """Lists in the order of UTF-16."""

    async def list(self, prefix: str, after: str, limit: int) -> Sequence[StreamInfo]:
        found = await super().list(prefix, after, limit)
        return sorted(found, key=lambda info: info.name.encode("utf-16-be"))


class Trusting(MemoryStore):
    """Keeps the metadata only of those who give some that is not empty."""

    async def load(self, name: str, *, incarnation: str | None = None) -> StreamInfo | None:
        info = await super().load(name, incarnation=incarnation)
        return None if info is None else replace(info, length=info.length or None)


BROKEN: list[tuple[type[MemoryStore], str]] = [
    (Racing, "test_commits_from_many_tasks_serialise_and_each_decision_sees_the_latest"),
    (Racing, "test_of_many_who_append_at_one_offset_one_succeeds"),
    (Rewriting, "test_a_duplicate_changes_nothing_whatever_the_change_holds"),
    (Forgetful, "test_data_close_and_producer_are_one_change"),
    (Coarse, "test_names_are_listed_in_the_order_of_their_utf_8_bytes"),
    (Trusting, "test_none_and_empty_are_not_the_same"),
]


@pytest.mark.parametrize(("broken", "law"), BROKEN)
def test_a_broken_store_fails_the_law_that_it_breaks(broken: type[MemoryStore], law: str, tmp_path: Path) -> None:
    class Contract(StoreContract):
        def make(self, path: Path) -> Store:
            return broken()

    with pytest.raises(AssertionError):
        getattr(Contract(), law)(tmp_path)


@pytest.mark.parametrize("broken", [Rewriting, Forgetful])
def test_the_state_machine_tells_a_broken_store_from_the_model(broken: type[MemoryStore]) -> None:
    class Harness(StoreHarness):
        def make(self, path: Path) -> Store:
            return broken()

    quick = settings(max_examples=100, stateful_step_count=40, deadline=None, database=None, phases=[Phase.generate])
    with pytest.raises(AssertionError):
        run_state_machine_as_test(store_machine(Harness()), settings=quick)
