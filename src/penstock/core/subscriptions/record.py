"""The state of a subscription, and what becomes of it: pure, like the rules of streams. Times are Unix seconds."""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Self

from penstock.core.subscriptions.errors import AckOutOfRange, AlreadyClaimed, NoPendingWork, WakeFenced
from penstock.core.subscriptions.globs import matches

BEFORE_FIRST: Final = -1
"""The cursor of who has not even seen that the stream is there: a stream without any bytes is after it."""

_FIRST_RETRY: Final = 1.0
_LONGEST_RETRY: Final = 60.0
_JITTER: Final = 0.2
_ANNOUNCE_AGAIN: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What its creator says of a subscription.

    Attributes:
        webhook: the URL that is told of what is new, or None: then workers ask.
        wake_stream: the stream that tells workers to ask, or None.
        pattern: of the names of streams; see `penstock.core.subscriptions.globs`; or None.
        streams: further names, sorted.
        lease: seconds that a worker has from one sign of life to the next.
        description: for people, or None.
    """

    webhook: str | None = None
    wake_stream: str | None = None
    pattern: str | None = None
    streams: tuple[str, ...] = ()
    lease: float = 30.0
    description: str | None = None


@dataclass(frozen=True, slots=True)
class LinkState:
    """A stream as a subscription finds it: its tail, and which incarnation it is; ``None`` if there is none."""

    tail: int = 0
    incarnation: str | None = None


NOWHERE: Final = LinkState()


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A stream of a subscription.

    Attributes:
        acked: the offset up to which it was worked on.
        incarnation: which stream that was; None for one that was not there.
        explicit: whether it was named.
        glob: whether it was found by the pattern.
    """

    acked: int
    incarnation: str | None = None
    explicit: bool = False
    glob: bool = False

    def at(self, state: LinkState) -> int:
        """Return the cursor in the stream that there is now: in one that was made anew, it is before the first byte."""
        if state.incarnation is None or state.incarnation == self.incarnation:
            return self.acked
        return BEFORE_FIRST if self.incarnation is not None else min(self.acked, state.tail)

    def pending(self, state: LinkState) -> bool:
        """Tell whether there is something to work on."""
        return state.incarnation is not None and state.tail > max(self.at(state), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A subscription at one moment.

    Attributes:
        id: its name, chosen by its creator.
        settings: what that one said.
        base: the URL under which it was created, for the URLs that are told to webhooks.
        created_at: when.
        links: its streams, by name.
        generation: how many wakes there were.
        wake: the id of the one that is under way, or None.
        snapshot: the tails, and incarnations, that it told of.
        holder: the worker that claimed it, or None.
        lease_until: when the lease of the wake ends, or None: a wake that nobody claimed yet has none.
        attempt_until: until when somebody is telling the webhook, or None.
        retry_at: when it is told again, or None.
        retries: how often that failed since it went well last.
        announced: whether the wake stream tells of the wake.
        announce_at: when it does at the latest.
    """

    id: str
    settings: Settings
    base: str
    created_at: float
    links: Mapping[str, Link] = field(default_factory=dict)
    generation: int = 0
    wake: str | None = None
    snapshot: Mapping[str, LinkState] = field(default_factory=dict)
    holder: str | None = None
    lease_until: float | None = None
    attempt_until: float | None = None
    retry_at: float | None = None
    retries: int = 0
    announced: bool = True
    announce_at: float = 0.0

    # -- as JSON --------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """Return a subscription as it was kept."""
        settings = {**kept["settings"], "streams": tuple(kept["settings"]["streams"])}
        return cls(
            **{
                **kept,
                "settings": Settings(**settings),
                "links": {name: Link(**link) for name, link in kept["links"].items()},
                "snapshot": {name: LinkState(**state) for name, state in kept["snapshot"].items()},
            }
        )

    # -- looks ----------------------------------------------------------------------------------------------------

    @property
    def failing(self) -> bool:
        """Whether the webhook was not heard, and is to be told again."""
        return self.retry_at is not None

    @property
    def due(self) -> float | None:
        """When something is to be done about it if nothing happens before, or None."""
        if self.wake is None:
            return None
        if not self.announced:
            return self.announce_at
        return self.retry_at or self.attempt_until or self.lease_until

    def wants(self, name: str) -> bool:
        """Tell whether a stream of this name belongs to it."""
        return name in self.links or (self.settings.pattern is not None and matches(self.settings.pattern, name))

    def idle(self, now: float) -> bool:
        """Tell whether no wake is under way; one whose lease has ended is not."""
        return self.wake is None or (self.due is not None and self.due <= now and self.announced and not self.failing)

    def pending(self, states: Mapping[str, LinkState]) -> bool:
        """Tell whether there is something to work on."""
        return any(link.pending(states.get(name, NOWHERE)) for name, link in self.links.items())

    # -- membership -----------------------------------------------------------------------------------------------

    def linked(
        self, states: Mapping[str, LinkState], *, explicit: bool = False, from_tail: bool = False
    ) -> Subscription:
        """Return it with some streams more: from their tails on, or from their beginning.

        Args:
            states: the streams, by name.
            explicit: whether they were named; else they were found by the pattern.
            from_tail: whether what they have already does not count.
        """
        links = dict(self.links)
        for name, state in states.items():
            acked = state.tail if from_tail else BEFORE_FIRST
            link = links.get(name, Link(acked=acked, incarnation=state.incarnation))
            links[name] = replace(link, explicit=link.explicit or explicit, glob=link.glob or not explicit)
        return self if links == self.links else replace(self, links=links)

    def unlinked(self, name: str) -> Subscription:
        """Return it without a stream that was named. One that the pattern finds stays."""
        link = self.links.get(name)
        if link is None or not link.explicit:
            return self
        links = dict(self.links)
        if link.glob:
            links[name] = replace(link, explicit=False)
        else:
            del links[name]
        return replace(self, links=links)

    # -- wakes ----------------------------------------------------------------------------------------------------

    def woken(self, states: Mapping[str, LinkState], now: float) -> Subscription:
        """Return it with a new wake, which nobody has heard of yet."""
        woken = replace(
            self,
            generation=self.generation + 1,
            wake=f"w_{secrets.token_hex(12)}",
            snapshot={name: states.get(name, NOWHERE) for name in self.links},
            holder=None,
        )
        if self.settings.webhook is None:
            return replace(woken, lease_until=None, announced=False, announce_at=now + _ANNOUNCE_AGAIN)
        return woken.told(now)

    def told(self, now: float) -> Subscription:
        """Return it as it is while somebody tells the webhook: the lease is how long that may take."""
        until = now + self.settings.lease
        return replace(self, lease_until=until, attempt_until=until, retry_at=None)

    def heard(self) -> Subscription:
        """Return it after the webhook was told: it has until the end of the lease to call back."""
        return replace(self, attempt_until=None, retry_at=None, retries=0)

    def unheard(self, now: float) -> Subscription:
        """Return it after the webhook was told in vain."""
        pause = min(_FIRST_RETRY * 2**self.retries, _LONGEST_RETRY)
        pause *= random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - it spreads load
        return replace(self, attempt_until=None, retry_at=now + pause, retries=min(self.retries + 1, 16))

    def claimed(self, worker: str, states: Mapping[str, LinkState], now: float) -> Subscription:
        """Return it as held by a worker.

        Raises:
            AlreadyClaimed: another one holds it.
            NoPendingWork: there is nothing to do.
        """
        held = self if not self.idle(now) else self._ended()
        if held.holder is not None:
            raise AlreadyClaimed(self.id, held.holder, self.generation)
        if not held.pending(states):
            raise NoPendingWork(self.id)
        if held.wake is None:
            held = held.woken(states, now)
        return replace(held, holder=worker, lease_until=now + self.settings.lease)

    def acknowledged(
        self,
        wake: str,
        generation: int,
        acks: Mapping[str, int],
        states: Mapping[str, LinkState],
        now: float,
        *,
        done: bool = False,
    ) -> Subscription:
        """Return it after a worker's word: how far it came, and whether it is done. It is a sign of life, too.

        Raises:
            WakeFenced: it speaks of another wake than the one that is under way.
            AckOutOfRange: it has done what is not there, or less than before, or is not about a stream of ours.
        """
        self.check(wake, generation)
        links = dict(self.links)
        for name, offset in acks.items():
            link, state = links.get(name), states.get(name, NOWHERE)
            if link is None or not max(link.at(state), 0) <= offset <= state.tail:
                raise AckOutOfRange(self.id, name, offset)
            links[name] = replace(link, acked=offset, incarnation=state.incarnation)
        acked = replace(self, links=links, attempt_until=None, retry_at=None, lease_until=now + self.settings.lease)
        return acked.finished(states, now) if done else acked

    def check(self, wake: str, generation: int) -> None:
        """Make sure that somebody speaks of the wake that is under way.

        Raises:
            WakeFenced: of another one.
        """
        if self.wake is None or (wake, generation) != (self.wake, self.generation):
            raise WakeFenced(self.id, self.generation)

    def all_done(self, states: Mapping[str, LinkState], now: float) -> Subscription:
        """Return it after the webhook did all that it was told of."""
        links = dict(self.links)
        for name, told in self.snapshot.items():
            if name in links and told.incarnation is not None:
                links[name] = replace(links[name], acked=told.tail, incarnation=told.incarnation)
        return replace(self, links=links).heard().finished(states, now)

    def finished(self, states: Mapping[str, LinkState], now: float) -> Subscription:
        """Return it after a wake; with another one if there is more to do."""
        return self._ended().roused(states, now)

    def roused(self, states: Mapping[str, LinkState], now: float) -> Subscription:
        """Return it with a wake if it is idle, and there is something to do."""
        if not self.idle(now):
            return self
        ended = self._ended()
        return ended.woken(states, now) if ended.pending(states) else ended

    def overdue(self, states: Mapping[str, LinkState], now: float) -> Subscription:
        """Return it after the time came that `due` tells: told again, or with a new wake, or at rest."""
        if self.due is None or self.due > now or not self.announced:
            return self
        if (self.failing or self.attempt_until is not None) and (self.lease_until or 0) > now:
            return self.told(now)
        return self._ended().roused(states, now)

    def _ended(self) -> Subscription:
        if self.wake is None:
            return self
        return replace(
            self,
            wake=None,
            snapshot={},
            holder=None,
            lease_until=None,
            attempt_until=None,
            retry_at=None,
            announced=True,
        )
