"""Setting right what stores that ended left behind. Blocking.

How long that takes depends on what was going on when they ended, not on how much is stored.
"""

from __future__ import annotations

from contextlib import suppress

from penstock.stores.local.batch import Batch
from penstock.stores.local.catalog import NOBODY
from penstock.stores.local.engine import Engine


def recover(engine: Engine) -> None:
    """Clean up after every store that ended, and remove the files of deleted streams."""
    with engine.instance.ended() as ended:
        for instance in (*ended, NOBODY):
            settle(engine, instance)


def settle(engine: Engine, instance: str) -> None:
    """Discard what an instance was still writing, and set right the files that it wrote to."""

    def discard(batch: Batch) -> None:
        for head in batch.catalog.owned_by(instance):
            batch.catalog.remove(head.key)
            batch.catalog.unsettle(head.info.incarnation, instance)

    engine.committer.submit(discard, durable=False).result()
    for incarnation in engine.catalog().unsettled(instance):
        _settle_file(engine, incarnation, instance)


def _settle_file(engine: Engine, incarnation: str, instance: str) -> None:
    """Make a file be what the catalog says: gone, or cut to its length."""
    if engine.catalog().by_incarnation(incarnation) is None:
        engine.blobs.remove(incarnation)
    else:
        # Nobody writes while the lock is held, so the length that is read then holds.
        with suppress(FileNotFoundError), engine.blobs.locked(incarnation, create=False) as blob:
            head = engine.catalog().by_incarnation(incarnation)
            if head is not None:
                blob.cut(head.filed)
    engine.committer.submit(lambda batch: batch.catalog.settle(incarnation, instance), durable=False).result()
