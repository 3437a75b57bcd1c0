"""What the local store leaves in its files when it is cut short."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from penstock.stores.local import LocalStore
from penstock.stores.local.blobs import Blob
from penstock.stores.local.catalog import Catalog
from penstock.testing import Driver
from penstock.testing.driver import flow


def test_a_stream_that_is_closed_while_it_is_folded_has_its_file_set_right_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, crashed = threading.Event(), threading.Event()
    sync = Blob.sync

    def held(blob: Blob, *, folders: bool) -> None:
        written.set()
        crashed.wait(30)
        sync(blob, folders=folders)

    async def crash() -> int:
        store = LocalStore(tmp_path)
        await store.start()
        driver = Driver(store)
        tail = (await driver.create("s")).offset
        while not written.is_set():  # enough small appends are moved to the file, in the background
            tail = (await driver.append("s", flow("s", tail, 60_000))).offset
        await driver.append("s", close=True)
        abandoned = threading.Thread(target=store.abandon)
        abandoned.start()
        await asyncio.sleep(0.2)
        crashed.set()
        await asyncio.to_thread(abandoned.join)
        return tail

    async def recover(tail: int) -> None:
        store = LocalStore(tmp_path)
        await store.start()
        assert await Driver(store).content("s") == flow("s", 0, tail)
        await store.stop()

    with monkeypatch.context() as patch:
        patch.setattr(Blob, "sync", held)
        tail = asyncio.run(crash())
    asyncio.run(recover(tail))
    catalog = Catalog(tmp_path / "catalog.sqlite3")
    (head,) = [catalog.by_name(info.name) for info in catalog.listing("", "", 10)]
    catalog.close()
    assert head is not None
    assert [path.stat().st_size for path in (tmp_path / "blobs").glob("*/*")] in ([], [head.filed])
