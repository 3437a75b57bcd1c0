"""What carries subscriptions out: in every process that serves, all on the same state.

After each append, the process that made it looks which subscriptions that wakes; each process looks after what is due;
whoever's commit changes the state does what follows from it. A process that ends in between leaves a time at which
something is due, and another one goes on from there.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import quote

from penstock.core import rules
from penstock.core.follow import RECHECK
from penstock.core.ports import Change, Notifier, View
from penstock.core.subscriptions.errors import SubscriptionExists, SubscriptionNotFound
from penstock.core.subscriptions.looks import Looks, States
from penstock.core.subscriptions.record import NOWHERE, LinkState, Settings, Subscription
from penstock.errors import PenstockError, ProducerFenced, StreamError
from penstock.model import RESERVED, Producer, StreamInfo, StreamSpec, new_incarnation

if TYPE_CHECKING:
    from penstock.core.service import StreamService

logger = logging.getLogger("penstock")

_FOLDER: Final = f"{RESERVED}/subscriptions/"
_KEYS: Final = f"{RESERVED}/keys"
_STATE: Final = "subscription"
_SCAN_EVERY: Final = 60.0
_DELIVERIES: Final = 32
_RETRY: Final = 1.0

Delivery: TypeAlias = Callable[[Subscription, Mapping[str, LinkState]], Awaitable[bool]]
"""Tells a webhook of a wake, within the lease, and returns whether all is done; it raises if that was not heard."""

Step: TypeAlias = Callable[[Subscription, float], Subscription]


class Subscriptions:
    """The subscriptions of a service.

    Args:
        service: the streams.
        notifier: tells the processes of each other's subscriptions.

    Attributes:
        deliver: tells webhooks, or None: then there are none.
    """

    def __init__(self, service: StreamService, notifier: Notifier) -> None:
        self._service = service
        self._notifier = notifier
        self._looks = Looks(service)
        self.deliver: Delivery | None = None
        self._known: dict[str, Subscription] = {}
        self._changed: set[str] = set()
        self._roused = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._delivering = asyncio.Semaphore(_DELIVERIES)
        self._refreshed_at = self._scanned_at = -math.inf

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to look after the subscriptions that there are."""
        self._roused = asyncio.Event()
        self._spawn(self._run())
        self._spawn(self._listen())

    async def stop(self) -> None:
        """End. A delivery that is under way is broken off, and made again by whoever comes next."""
        for task in list(self._tasks):
            task.cancel()
        for task in list(self._tasks):
            with suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="penstock-subscriptions")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def changed(self, name: str) -> None:
        """Hear of a change by this process. It must be quick: it is on the way of each append."""
        if self._known and not name.startswith(f"{RESERVED}/"):
            self._changed.add(name)
            self._roused.set()

    async def _run(self) -> None:
        clock = asyncio.get_running_loop()
        while True:
            self._roused.clear()  # first, so that nothing that comes while we look is lost
            try:
                await self._round(clock.time())
            except PenstockError as error:
                logger.warning("Subscriptions could not be looked after, which is tried again: %s", error)
                await asyncio.sleep(_RETRY)
            except Exception:
                logger.exception("Subscriptions could not be looked after, which is tried again.")
                await asyncio.sleep(_RETRY)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._roused.wait(), self._pause())

    def _pause(self) -> float:
        dues = [known.due for known in self._known.values() if known.due is not None]
        return min([RECHECK, *(max(0.01, due - self._service.now()) for due in dues)])

    async def _round(self, time: float) -> None:
        """Look at what is new, what is due, and now and then at everything."""
        if time - self._refreshed_at >= RECHECK:
            await self._refresh(time)
        changed, self._changed = self._changed, set()
        for known in list(self._known.values()):
            names = [name for name in changed if known.wants(name)]
            if names:
                await self._look_at(known, names)
        now = self._service.now()
        for known in list(self._known.values()):
            if known.due is not None and known.due <= now:
                await self._on_due(known.id)
        if time - self._scanned_at >= _SCAN_EVERY:
            self._scanned_at = time
            for known in list(self._known.values()):
                await self._scan(known)

    async def _listen(self) -> None:
        """Hear of subscriptions that other processes made or changed."""
        watch = self._notifier.watch(_FOLDER)
        try:
            while True:
                await watch.wait(RECHECK)
                watch.clear()
                self._refreshed_at = -math.inf
                self._roused.set()
        finally:
            watch.close()

    async def _refresh(self, time: float) -> None:
        """Load all subscriptions. What was appended before a new one was known here, it has to find by itself."""
        found: dict[str, Subscription] = {}
        async for info in self._service.list_all(_FOLDER, reserved=True):
            kept = Subscription.from_json(info.attributes[_STATE])
            found[kept.id] = kept
        new = [kept for id_, kept in found.items() if not _same_streams(kept, self._known.get(id_))]
        self._known = found
        self._refreshed_at = time
        for kept in new:
            await self._scan(kept)

    # -- what the workers and their masters do --------------------------------------------------------------------

    async def create(self, id_: str, settings: Settings, base: str) -> tuple[Subscription, bool]:
        """Create a subscription, or find that it is there; tell whether it was created.

        Raises:
            SubscriptionExists: it is there with other settings.
        """
        now = self._service.now()
        states = await self._looks.at(settings.streams)
        fresh = Subscription(id=id_, settings=settings, base=base, created_at=now)
        fresh = fresh.linked(states, explicit=True, from_tail=True)
        if settings.pattern is not None:
            fresh = fresh.linked(await self._looks.matching(settings.pattern), from_tail=True)
        spec = StreamSpec(content_type="application/json", attributes={_STATE: fresh.to_json()})
        change = await self._created(_name_of(id_), spec)
        kept = _state_of(change.info, id_)
        if kept.settings != settings:
            raise SubscriptionExists(id_)
        if change.duplicate:
            return kept, False
        self._learn(kept)
        await self._scan(kept)  # what came while it was being made
        return kept, True

    async def get(self, id_: str) -> Subscription:
        """Return a subscription.

        Raises:
            SubscriptionNotFound: there is none.
        """
        kept = _state_of(await self._service.load(_name_of(id_)), id_)
        self._known[id_] = kept
        return kept

    async def delete(self, id_: str) -> None:
        """Remove a subscription; again is harmless. What its workers say from now on counts for nothing."""
        await self._service.commit(
            _name_of(id_), lambda view: Change(view.target, duplicate=True) if view.target is None else Change(None)
        )
        self._known.pop(id_, None)
        self._notifier.notify(_FOLDER)

    async def link(self, id_: str, names: Iterable[str]) -> None:
        """Add streams, from their tails on."""
        states = await self._looks.at(names)
        kept = await self._commit(id_, lambda kept, _: kept.linked(states, explicit=True, from_tail=True))
        self._learn(kept)
        await self._scan(kept)

    async def unlink(self, id_: str, name: str) -> None:
        """Take a stream out that was added."""
        self._learn(await self._commit(id_, lambda kept, _: kept.unlinked(name)))

    async def claim(self, id_: str, worker: str) -> tuple[Subscription, States]:
        """Give a worker the wake, and return it with the streams.

        Raises:
            AlreadyClaimed, NoPendingWork: there is none to be had.
        """
        # An append that the worker knows of may not have been looked at yet.
        kept = await self._scan(await self.get(id_))
        states = await self._looks.at(kept.links)
        return await self._commit(id_, lambda kept, now: kept.claimed(worker, states, now)), states

    async def acknowledge(self, id_: str, wake: str, generation: int, acks: Mapping[str, int], *, done: bool) -> bool:
        """Take a worker's word, and tell whether there is another wake.

        Raises:
            WakeFenced, AckOutOfRange: it is not to be taken.
        """
        states = await self._states_of(id_)
        kept = await self._commit(
            id_, lambda kept, now: kept.acknowledged(wake, generation, acks, states, now, done=done)
        )
        return done and await self._again(kept)

    async def release(self, id_: str, wake: str, generation: int) -> None:
        """Let a worker give the wake back.

        Raises:
            WakeFenced: it does not have it any more.
        """
        states = await self._states_of(id_)

        def given_back(kept: Subscription, now: float) -> Subscription:
            kept.check(wake, generation)
            return kept.finished(states, now)

        await self._again(await self._commit(id_, given_back))

    async def _again(self, kept: Subscription) -> bool:
        """Look again after a wake has ended: what came since its streams were looked at woke nobody."""
        if kept.wake is None:
            kept = await self._scan(kept)
        return kept.wake is not None

    async def keys(self) -> dict[str, str]:
        """Return the secrets that all processes share, in hexadecimal: made once, and kept with the streams."""
        info = await self._service.load(_KEYS)
        if info is None:
            fresh = {"token": os.urandom(32).hex(), "signing": os.urandom(32).hex()}
            info = (await self._created(_KEYS, StreamSpec(attributes=fresh))).info
        assert info is not None  # noqa: S101 - it was there, or has just been made
        return dict(info.attributes)

    async def _created(self, name: str, spec: StreamSpec) -> Change:
        """Create a stream of the server's own, or find that it is there: another process may have been the first."""
        now, incarnation = self._service.now(), new_incarnation()

        def decide(view: View) -> Change:
            if view.current is not None:
                return Change(view.current, duplicate=True)
            return rules.create(view, name, spec, incarnation=incarnation, now=now)

        return await self._service.commit(name, decide)

    # -- waking ---------------------------------------------------------------------------------------------------

    async def _look_at(self, known: Subscription, names: Iterable[str]) -> None:
        """Wake whom an append to these streams wakes."""
        try:
            kept = await self.get(known.id)
        except SubscriptionNotFound:
            self._known.pop(known.id, None)
            return
        new = [name for name in names if name not in kept.links]
        if new or kept.idle(self._service.now()):
            await self._rouse(kept, new)

    async def _scan(self, kept: Subscription) -> Subscription:
        """Find streams that it wants and does not have, and what is new in those that it has."""
        try:
            new = await self._find_new(kept)
            return await self._rouse(kept, new)
        except SubscriptionNotFound:
            self._known.pop(kept.id, None)
            return kept

    async def _find_new(self, kept: Subscription) -> list[str]:
        """Return the streams of the pattern that it does not have, and that have anything in them."""
        if kept.settings.pattern is None:
            return []
        found = await self._looks.matching(kept.settings.pattern)
        return [name for name, state in found.items() if name not in kept.links and state.tail]

    async def _rouse(self, kept: Subscription, new: Iterable[str]) -> Subscription:
        """Link streams that were found, and wake who has something to do."""
        found = await self._looks.at(new)
        states = {**await self._looks.at(kept.links), **found}

        def roused(kept: Subscription, now: float) -> Subscription:
            return kept.linked(found).roused(states, now)

        if not found and roused(kept, self._service.now()) is kept:
            return kept
        return await self._commit(kept.id, roused)

    async def _on_due(self, id_: str) -> None:
        try:
            kept = await self.get(id_)
            if kept.wake is not None and not kept.announced and (kept.due or 0) <= self._service.now():
                await self._announce(kept)
                return
            states = await self._states_of(id_)
            await self._again(await self._commit(id_, lambda kept, now: kept.overdue(states, now)))
        except SubscriptionNotFound:
            self._known.pop(id_, None)

    async def _states_of(self, id_: str) -> States:
        return await self._looks.at((await self.get(id_)).links)

    async def _commit(self, id_: str, step: Step) -> Subscription:
        """Take a step, in whichever process gets there first, and do what follows from it.

        Raises:
            SubscriptionNotFound: there is none.
        """
        now = self._service.now()
        before: list[Subscription] = []

        def decide(view: View) -> Change:
            kept = _state_of(view.target, id_)
            before[:] = [kept]
            taken = step(kept, now)
            if taken is kept or view.target is None:
                return Change(view.target, duplicate=True)
            attributes = {**view.target.attributes, _STATE: taken.to_json()}
            return Change(replace(view.target, attributes=attributes, modified_at=now))

        change = await self._service.commit(_name_of(id_), decide)
        kept = _state_of(change.info, id_)
        self._known[id_] = kept
        if not change.duplicate:
            self._roused.set()  # something may be due at another time than before
            self._follow_up(before[-1], kept)
        return kept

    def _follow_up(self, before: Subscription, kept: Subscription) -> None:
        if kept.wake is None:
            return
        if not kept.announced and before.wake != kept.wake:
            self._spawn(self._announce(kept))
        if kept.attempt_until is not None and before.attempt_until != kept.attempt_until:
            self._spawn(self._tell(kept))

    def _learn(self, kept: Subscription) -> None:
        """Know of a subscription, and let the other processes know of it."""
        self._known[kept.id] = kept
        self._notifier.notify(_FOLDER)

    # -- telling --------------------------------------------------------------------------------------------------

    async def _announce(self, kept: Subscription) -> None:
        """Tell the wake stream of a wake, once, however often that is tried."""
        stream = kept.settings.wake_stream
        assert stream is not None  # noqa: S101 - it has no webhook
        event = {
            "type": "wake",
            "subscription_id": kept.id,
            "stream": next(
                (name for name, link in kept.links.items() if link.pending(kept.snapshot.get(name, NOWHERE))), ""
            ),
            "generation": kept.generation,
            "ts": int(self._service.now() * 1000),
        }
        # An epoch for each wake: whoever tells of it again repeats the one append of that epoch.
        producer = Producer(f"{_FOLDER}{kept.id}@{kept.created_at}", kept.generation, 0)
        data = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        try:
            await self._service.append(stream, [data], producer=producer)
        except StreamError as error:
            logger.warning("The wake stream of the subscription %r cannot be told: %s", kept.id, error)
            if not isinstance(error, ProducerFenced):
                await self._later(kept)
                return
        await self._quietly(kept.id, lambda now_kept, _: _announced(now_kept, kept))

    async def _later(self, kept: Subscription) -> None:
        def later(now_kept: Subscription, now: float) -> Subscription:
            return replace(now_kept, announce_at=now + RECHECK) if now_kept.wake == kept.wake else now_kept

        await self._quietly(kept.id, later)

    async def _tell(self, kept: Subscription) -> None:
        """Tell the webhook, and keep what came of it."""
        deliver = self.deliver
        states = await self._looks.at(kept.links)
        try:
            if deliver is None:
                raise RuntimeError("webhooks are not served here")  # noqa: TRY301 - as any other delivery that fails
            async with self._delivering, asyncio.timeout(kept.settings.lease):
                done = await deliver(kept, states)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
            logger.warning("The webhook of the subscription %r was not heard: %r", kept.id, error)
            await self._quietly(kept.id, lambda now_kept, now: _if_same(now_kept, kept, now_kept.unheard(now)))
            return
        if not done:
            await self._quietly(kept.id, lambda now_kept, _: _if_same(now_kept, kept, now_kept.heard()))
            return
        states = await self._looks.at(kept.links)
        told = await self._quietly(
            kept.id, lambda now_kept, now: _if_same(now_kept, kept, now_kept.all_done(states, now))
        )
        if told is not None:
            await self._again(told)

    async def _quietly(self, id_: str, step: Step) -> Subscription | None:
        """Take a step of which nobody waits to hear; what the storage refuses now is due later."""
        try:
            return await self._commit(id_, step)
        except PenstockError as error:
            if not isinstance(error, SubscriptionNotFound):
                logger.warning("The subscription %r could not be kept: %s", id_, error)
            return None


def _announced(now_kept: Subscription, kept: Subscription) -> Subscription:
    return replace(now_kept, announced=True) if now_kept.wake == kept.wake else now_kept


def _if_same(now_kept: Subscription, told: Subscription, then: Subscription) -> Subscription:
    """Return what came of an attempt, if it is still the last one."""
    same = (now_kept.wake, now_kept.attempt_until) == (told.wake, told.attempt_until)
    return then if same else now_kept


def _same_streams(kept: Subscription, known: Subscription | None) -> bool:
    return known is not None and (kept.created_at, kept.links.keys()) == (known.created_at, known.links.keys())


def _name_of(id_: str) -> str:
    return _FOLDER + quote(id_, safe="")


def _state_of(info: StreamInfo | None, id_: str) -> Subscription:
    if info is None or _STATE not in info.attributes:
        raise SubscriptionNotFound(id_)
    return Subscription.from_json(info.attributes[_STATE])
