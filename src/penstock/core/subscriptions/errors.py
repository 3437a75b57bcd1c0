"""What can go wrong with subscriptions: facts as attributes, as in `penstock.errors`."""

from __future__ import annotations

from penstock.errors import PenstockError


class SubscriptionError(PenstockError):
    """An error about one subscription, whose ``id`` it carries."""

    def __init__(self, id: str, text: str) -> None:  # noqa: A002 - what it is called
        self.id = id
        super().__init__(text)


class SubscriptionNotFound(SubscriptionError):
    """No subscription has this id."""

    def __init__(self, id: str) -> None:  # noqa: A002 - see above
        super().__init__(id, f"There is no subscription {id!r}.")


class SubscriptionExists(SubscriptionError):
    """A subscription was to be created, and one of that id is there with other settings."""

    def __init__(self, id: str) -> None:  # noqa: A002 - see above
        super().__init__(id, f"There is a subscription {id!r} with other settings.")


class WakeFenced(SubscriptionError):
    """A worker speaks of a wake that is over; the current one has the ``generation``."""

    def __init__(self, id: str, generation: int) -> None:  # noqa: A002 - see above
        self.generation = generation
        super().__init__(id, f"That wake of the subscription {id!r} is over: the current one has another generation.")


class AlreadyClaimed(SubscriptionError):
    """Another worker, the ``holder``, has the wake of this ``generation``."""

    def __init__(self, id: str, holder: str, generation: int) -> None:  # noqa: A002 - see above
        self.holder = holder
        self.generation = generation
        super().__init__(id, f"The subscription {id!r} is held by {holder!r}.")


class NoPendingWork(SubscriptionError):
    """There is nothing new in the streams of the subscription."""

    def __init__(self, id: str) -> None:  # noqa: A002 - see above
        super().__init__(id, f"The subscription {id!r} has no pending work.")


class AckOutOfRange(SubscriptionError):
    """A worker acknowledges an ``offset`` of a stream ``name`` that it cannot have worked on, or had before."""

    def __init__(self, id: str, name: str, offset: int) -> None:  # noqa: A002 - see above
        self.name = name
        self.offset = offset
        super().__init__(id, f"Offset {offset} of the stream {name!r} is not one that can be acknowledged now.")
