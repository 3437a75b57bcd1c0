"""Setting right what stores that ended left behind. Blocking.

How long that takes depends on what was going on when they ended, not on how much is stored.
"""

from __future__ import annotations

from contextlib import suppress

from penstock.stores.local.batch import Batch
from penstock.stores.local.catalog import NOBODY
from penstock.stores.local.committer import Job
from penstock.stores.local.engine import Engine


def recover(engine: Engine) -> None:
    """Clean up after every store that ended, and remove the files of deleted streams."""
    with engine.instance.ended() as ended:
        for instance, machine_ended in ended.items():
            settle(engine, instance, machine_ended=machine_ended)
        settle(engine, NOBODY)


def settle(engine: Engine, instance: str, *, machine_ended: bool = False) -> None:
    """Discard what an instance was still writing, and set right the files that it wrote to.

    With ``machine_ended``, the machine went down with the instance, and what was not on the disk went too.
    """

    def discard(batch: Batch) -> None:
        for head in batch.catalog.written_by(instance):
            batch.discard(head)
            batch.catalog.unsettle(head.info.incarnation, instance)

    engine.committer.do(Job(discard), durable=False)
    for incarnation in engine.catalog().unsettled(instance):
        _settle_file(engine, incarnation, instance, machine_ended=machine_ended)


def _settle_file(engine: Engine, incarnation: str, instance: str, *, machine_ended: bool) -> None:
    """Make a file be what the catalog says: gone, or cut to its length."""
    if machine_ended:
        engine.committer.do(Job(lambda batch: batch.cut_to_synced(incarnation)), durable=True)
    if engine.catalog().by_incarnation(incarnation) is None:
        engine.blobs.remove(incarnation)
    else:
        # Nobody writes while the lock is held, so the length that is read then holds.
        with suppress(FileNotFoundError), engine.blobs.locked(incarnation, create=False) as blob:
            head = engine.catalog().by_incarnation(incarnation)
            if head is not None:
                blob.cut(head.filed)
    engine.committer.do(Job(lambda batch: batch.catalog.settle(incarnation, instance)), durable=False)
