"""What the parts of the store work with: the catalog's connections, its committer, the files, the threads."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from penstock.errors import StorageFailed
from penstock.stores.local.blobs import Blobs
from penstock.stores.local.catalog import Catalog, translated
from penstock.stores.local.committer import Committer
from penstock.stores.local.generations import Generations
from penstock.stores.local.instances import Instance
from penstock.stores.local.recollection import Recollections
from penstock.stores.local.reserve import Reserve

T = TypeVar("T")

_NOT_STARTED = "The store is not started: use it within its lifespan."


class Engine:
    """The machinery on one folder.

    Attributes:
        fsync: whether what is durable is brought to the disk.
        blobs: the files.
        committer: who writes to the catalog.
        instance: this store among those on the folder.
        recollections: what was committed last.
        generations: tell what has not changed.
    """

    blobs: Blobs
    committer: Committer
    instance: Instance
    generations: Generations

    def __init__(self, path: Path, *, fsync: bool) -> None:
        self.fsync = fsync
        self._path = path
        self._catalog_path = path / "catalog.sqlite3"
        self._local = threading.local()
        self._catalogs: list[Catalog] = []
        self._started = False
        self.recollections = Recollections()

    def start(self) -> None:
        """Open everything. Blocking."""
        lock = self._path / "commit.lock"
        with translated():
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.blobs = Blobs(self._path / "blobs")
            self.instance = Instance(self._path / "instances")
            with _locked(lock):
                first = Catalog(self._catalog_path)
                try:
                    first.migrate()
                finally:
                    first.close()
                self.generations = Generations(self._path / "generations")
        self.committer = Committer(
            self._catalog_path, lock, self.instance.id, Reserve(self._path / "reserve"), self.generations
        )
        # Reads are short; appends to files wait for the disk, and must not keep reads waiting.
        self._readers = ThreadPoolExecutor(8, "penstock-read")
        self._writers = ThreadPoolExecutor(16, "penstock-write")
        self._started = True

    def stop(self, settle: Callable[[], None]) -> None:
        """Finish what is under way, clean up after it with ``settle``, and release everything. Blocking."""
        if self._started:
            self._started = False
            self._writers.shutdown()
            orderly = quietly(settle)
            self.committer.stop()
            self._release(orderly=orderly)

    def abandon(self) -> None:
        """Go away as after a crash, leaving everything as it is at this moment."""
        self._started = False
        self.committer.abandon()
        self._writers.shutdown(cancel_futures=True)
        self._release(orderly=False)

    def _release(self, *, orderly: bool) -> None:
        self._readers.shutdown(cancel_futures=True)
        for catalog in self._catalogs:
            catalog.close()
        self.instance.end(orderly=orderly)
        self.generations.close()

    def check_started(self) -> None:
        """Raise `StorageFailed` if the store is not running."""
        if not self._started:
            raise StorageFailed(_NOT_STARTED)

    def catalog(self) -> Catalog:
        """Return this thread's connection to the catalog, for reading."""
        catalog: Catalog | None = getattr(self._local, "catalog", None)
        if catalog is None:
            catalog = self._local.catalog = Catalog(self._catalog_path)
            self._catalogs.append(catalog)
        return catalog

    async def read(self, function: Callable[..., T], *args: object) -> T:
        """Run a short, blocking read in a thread."""
        return await self._in_thread(self._readers, function, *args)

    async def write(self, function: Callable[..., T], *args: object) -> T:
        """Run what waits for the disk in a thread."""
        return await self._in_thread(self._writers, function, *args)

    async def _in_thread(self, pool: ThreadPoolExecutor, function: Callable[..., T], *args: object) -> T:
        self.check_started()
        try:
            running = asyncio.get_running_loop().run_in_executor(pool, _translating, function, *args)
        except RuntimeError:  # the pool was shut down since
            raise StorageFailed(_NOT_STARTED) from None
        return await running

    def in_background(self, function: Callable[..., None], *args: object) -> None:
        """Have a chore done some time soon."""
        with suppress(RuntimeError):  # the store is stopping: the next one to start does it
            self._writers.submit(quietly, function, *args)


def _translating(function: Callable[..., T], *args: object) -> T:
    with translated():
        return function(*args)


def quietly(function: Callable[..., None], *args: object) -> bool:
    """Do a chore, and tell whether it went well. One that fails (a full disk, say) is for the next time."""
    with suppress(Exception):
        _translating(function, *args)
        return True
    return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
