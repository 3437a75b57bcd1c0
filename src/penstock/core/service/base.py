"""What every part of the service stands on: the ports, the time, and the one way to change a stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from penstock.core import rules
from penstock.core.keeper import Keeper
from penstock.core.ports import Change, Clock, CollectingStore, Decide, Notifier, Proposal, Store, View
from penstock.errors import PenstockError
from penstock.model import Origin, StreamInfo

logger = logging.getLogger("penstock")


class ServiceBase:
    """A store, a notifier and a clock, joined.

    Attributes:
        on_change: is told the name of every stream that this process has changed; or None. It must be quick.
    """

    _store: Store
    _collecting: CollectingStore | None
    _notifier: Notifier
    _clock: Clock
    _keeper: Keeper
    _stopping: bool
    on_change: Callable[[str], None] | None

    @property
    def stopping(self) -> bool:
        """Whether `drain` was called."""
        return self._stopping

    def now(self) -> float:
        """Return the time that the rules are told (Unix seconds)."""
        return self._clock.now()

    async def commit(
        self,
        name: str,
        decide: Decide,
        *,
        incarnation: str | None = None,
        producer: str | None = None,
        size: int = 0,
        durable: bool = True,
    ) -> Change:
        """Have a decision carried out, and wake the followers. See `Store.commit`.

        Also a cancelled commit may have changed something, so the followers are woken whatever becomes of it.
        """
        try:
            change = await self._store.commit(
                name, decide, incarnation=incarnation, producer=producer, size=size, durable=durable
            )
        finally:
            self._notifier.notify(name)
        self._committed(name, change)
        return change

    async def commit_each(self, proposals: Sequence[Proposal]) -> Sequence[Change | BaseException]:
        """Have several small decisions carried out, each for itself. See `CollectingStore.commit_each`."""
        try:
            if self._collecting is not None:
                outcomes = await self._collecting.commit_each(proposals)
            else:
                commits = [
                    self._store.commit(name, decide, size=size, incarnation=incarnation)
                    for name, decide, size, incarnation in proposals
                ]
                outcomes = await asyncio.gather(*commits, return_exceptions=True)
        finally:
            for name in {proposal.name for proposal in proposals}:
                self._notifier.notify(name)
        for proposal, outcome in zip(proposals, outcomes, strict=True):
            if isinstance(outcome, Change):
                self._committed(proposal.name, outcome)
        return outcomes

    def _committed(self, name: str, change: Change) -> None:
        """Tell those of this process who have something to do after a change."""
        if self.on_change is not None and not change.duplicate:
            self.on_change(name)
        if change.data and change.info is not None and change.info.attributes:
            self._keeper.appended(change.info)

    async def _remove(self, name: str, decide: Decide, incarnation: str | None, *, durable: bool = True) -> Change:
        """Carry out a removal, and then that of the origins which were kept for this stream alone.

        Should that be interrupted, the next sweep finds them.
        """
        origins: list[Origin | None] = []

        def observed(view: View) -> Change:
            origins[:] = [None if view.target is None else view.target.origin]
            return decide(view)

        change = await self.commit(name, observed, incarnation=incarnation, durable=durable)
        origin = origins[-1]
        if change.info is None and origin is not None:
            try:
                await self._reap(origin)
            except PenstockError as error:  # what was asked for is done
                logger.warning("A deleted stream without forks could not be removed yet: %s", error)
        return change

    async def _reap(self, origin: Origin) -> None:
        await self._remove(origin.name, rules.reap, origin.incarnation, durable=False)

    async def _expire(self, info: StreamInfo) -> Change:
        now = self.now()
        return await self._remove(info.name, lambda view: rules.expire(view, now=now), info.incarnation, durable=False)


def there(change: Change) -> StreamInfo:
    """Return the state after a change that leaves a stream behind."""
    assert change.info is not None  # noqa: S101 - only deletions leave none
    return change.info
