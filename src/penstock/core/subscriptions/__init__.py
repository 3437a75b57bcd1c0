"""Subscriptions: durable cursors over streams that wake workers when there is something new.

The state of a subscription is an attribute of a stream of a reserved name, so that it is as durable as what it is
about, and changes by commits: whichever of several processes gets there first does what is to be done, and the others
see it.
"""

from penstock.core.subscriptions.engine import Delivery, Subscriptions
from penstock.core.subscriptions.record import Link, LinkState, Settings, Subscription

__all__ = ["Delivery", "Link", "LinkState", "Settings", "Subscription", "Subscriptions"]
