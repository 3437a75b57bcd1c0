"""Which files may differ from what the catalog says, so that somebody looks after them if this process ends."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from penstock.stores.local.batch import Batch, Commit
from penstock.stores.local.catalog import NOBODY
from penstock.stores.local.committer import Job
from penstock.stores.local.engine import Engine


class Unsettled:
    """The files that this store has touched and not settled since. The catalog lists them too, and outlives it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: set[str] = set()
        self._touched: Counter[str] = Counter()
        self._gate = threading.Lock()  # around the two above

    @contextmanager
    def touching(self, incarnation: str) -> Iterator[None]:
        """Note that a file may have to be looked after, before it is touched. Blocking."""
        with self._gate:
            self._touched[incarnation] += 1
            known = incarnation in self._known
        try:
            if not known:
                instance = self._engine.instance.id
                job = Job(lambda batch: batch.catalog.unsettle(incarnation, instance), size=len(incarnation))
                self._engine.committer.do(job, durable=False)
                with self._gate:
                    self._known.add(incarnation)
            yield
        finally:
            with self._gate:
                self._touched[incarnation] -= 1
                self._touched += Counter()  # keeps what is positive

    def settle_with(self, batch: Batch, commit: Commit, incarnation: str) -> None:
        """Note with a commit that nothing more is written to a file; unless others touch it just now."""
        with self._gate:
            settled = incarnation in self._known and self._touched[incarnation] <= (commit.filed is not None)
            if settled:
                self._known.discard(incarnation)
        if settled:
            batch.catalog.settle(incarnation, self._engine.instance.id)

    def remove(self, incarnation: str) -> None:
        """Remove the file of a stream that was deleted. Blocking."""
        self._engine.blobs.remove(incarnation)
        with self._gate:
            instances = [NOBODY, self._engine.instance.id] if incarnation in self._known else [NOBODY]
            self._known.discard(incarnation)

        def settle(batch: Batch) -> None:
            for instance in instances:
                batch.catalog.settle(incarnation, instance)

        self._engine.committer.do(Job(settle), durable=False)
