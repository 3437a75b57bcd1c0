"""The machine goes down: what was on the disk is there, and nothing else takes the place of what was not."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from penstock.stores.local import LocalStore
from penstock.testing import Driver
from penstock.testing.driver import flow


async def started(path: Path) -> tuple[LocalStore, Driver]:
    store = LocalStore(path, "fsync")
    await store.start()
    return store, Driver(store)


def machine_goes_down(path: Path) -> None:
    """Let the files lose what nobody brought to the disk, as a page cache does, and let it be another boot."""
    for instance in (path / "instances").iterdir():
        instance.write_bytes(b"another boot")
    catalog = sqlite3.connect(path / "catalog.sqlite3")
    for incarnation, synced in catalog.execute("SELECT incarnation, synced FROM streams"):
        file = path / "blobs" / incarnation[:2] / incarnation
        if file.exists():
            content = file.read_bytes()
            file.write_bytes(content[:synced] + bytes(len(content) - synced))
    catalog.close()


@pytest.mark.parametrize("durable", [[0], [100, 200_000], [1_500_000], [70_000, 10]])
@pytest.mark.parametrize("loose", [[100_000], [1_500_000, 10, 70_000], [10]])
async def test_an_upload_keeps_every_byte_that_was_acknowledged(
    tmp_path: Path, durable: list[int], loose: list[int]
) -> None:
    store, driver = await started(tmp_path)
    new = await driver.begin_upload("s")
    await driver.take_over("s", new, "w")
    tail = 0
    for size in durable:
        tail = (await driver.append("s", flow("s", tail, size), incarnation=new, writer="w")).offset
    acknowledged = tail
    for size in loose:
        data = flow("s", tail, size)
        tail = (await driver.append("s", data, incarnation=new, writer="w", durable=False)).offset
    store.abandon()
    machine_goes_down(tmp_path)
    store, driver = await started(tmp_path)
    content = await driver.content("s")
    assert acknowledged <= len(content) <= tail
    assert content == flow("s", 0, len(content))
    await driver.take_over("s", new, "x", offset=len(content))
    await driver.append("s", flow("s", len(content), 300_000), incarnation=new, writer="x")
    await driver.publish("s", new, writer="x")
    assert await driver.content("s") == flow("s", 0, len(content) + 300_000)
    await store.stop()


async def test_a_crash_of_the_process_alone_loses_nothing(tmp_path: Path) -> None:
    store, driver = await started(tmp_path)
    new = await driver.begin_upload("s")
    await driver.take_over("s", new, "w")
    await driver.append("s", flow("s", 0, 500_000), incarnation=new, writer="w", durable=False)
    store.abandon()
    store, driver = await started(tmp_path)
    assert await driver.content("s") == flow("s", 0, 500_000)
    await store.stop()


OLD_FORMAT = """
CREATE TABLE streams (
    key INTEGER PRIMARY KEY, incarnation TEXT NOT NULL UNIQUE, name TEXT NOT NULL, published INTEGER NOT NULL,
    owner TEXT, content_type TEXT NOT NULL, tail INTEGER NOT NULL, filed INTEGER NOT NULL, synced INTEGER NOT NULL,
    closed INTEGER NOT NULL, failure TEXT, length INTEGER, metadata TEXT, created_at REAL NOT NULL,
    modified_at REAL NOT NULL, ttl REAL, expires_at REAL, deadline REAL, digests TEXT
);
CREATE UNIQUE INDEX streams_by_name ON streams (name) WHERE published;
CREATE INDEX streams_by_deadline ON streams (deadline) WHERE published AND deadline IS NOT NULL;
CREATE INDEX streams_by_owner ON streams (owner) WHERE owner IS NOT NULL;
CREATE TABLE chunks (stream INTEGER NOT NULL, start INTEGER NOT NULL, data BLOB NOT NULL);
CREATE UNIQUE INDEX chunks_by_start ON chunks (stream, start);
CREATE TABLE producers (
    stream INTEGER NOT NULL, id TEXT NOT NULL, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL,
    tail INTEGER NOT NULL, PRIMARY KEY (stream, id)
) WITHOUT ROWID;
CREATE TABLE unsettled (incarnation TEXT NOT NULL, instance TEXT NOT NULL, PRIMARY KEY (incarnation, instance))
WITHOUT ROWID;
INSERT INTO streams VALUES
    (1, 'one', 's', 1, NULL, 'text/plain', 3, 0, 1, 0, NULL, NULL, NULL, 5.0, 6.0, NULL, NULL, NULL, NULL);
INSERT INTO chunks VALUES (1, 0, 'abc');
PRAGMA user_version = 1;
"""


async def test_a_folder_of_the_first_format_is_brought_up_to_date(tmp_path: Path) -> None:
    catalog = sqlite3.connect(tmp_path / "catalog.sqlite3")
    catalog.executescript(OLD_FORMAT.replace("'abc'", "x'616263'"))
    catalog.close()
    store, driver = await started(tmp_path)
    await driver.append("s", b"def")
    info = await driver.info("s")
    assert (info.content_type, info.tail, info.created_at, info.upload, info.attributes) == (
        *("text/plain", 6, 5.0, False),
        {},
    )
    assert await driver.content("s") == b"abcdef"
    await store.stop()
