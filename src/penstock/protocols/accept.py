"""Which media type a client likes best: the ``Accept`` field (RFC 9110 section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

__all__ = ["preferred_type"]

_WEIGHT: Final = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


def preferred_type(accepted: str | None, offers: Sequence[str]) -> str:
    """Return the one of the offered media types that the client likes best; of equals, the first.

    A client that accepts none of them gets the first: an answer that it did not ask for is better than none.

    Args:
        accepted: the field, its lines joined with commas; None for no field, which accepts everything.
        offers: media types in lower case, without parameters; at least one.
    """
    weights = [_weight(accepted or "*/*", offer) for offer in offers]
    return offers[weights.index(max(weights))]


def _weight(accepted: str, offer: str) -> float:
    """Return what the most specific range that includes a type says of it."""
    specificity = {"*/*": 1, f"{offer.partition('/')[0]}/*": 2, offer: 3}
    best = (0, 0.0)
    for element in accepted.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in element.split(";"))
        # Parameters before the weight (text/html;level=1) make it a range of narrower types, which are not offered.
        name, _, value = (parameters[0] if parameters else "q=1").partition("=")
        if media_range in specificity and name.strip() == "q" and _WEIGHT.fullmatch(value.strip()):
            best = max(best, (specificity[media_range], float(value)))
    return best[1]
