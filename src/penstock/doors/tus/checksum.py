"""The checksum of one body (the protocol's Checksum extension): a field before it, or a trailer after it."""

from __future__ import annotations

from typing import Self

from starlette.requests import Request

from penstock.core.digests import Hasher
from penstock.protocols import tus
from penstock.protocols.tus import Checksum
from penstock.toolkit.problems import RequestError, bad_request
from penstock.toolkit.requests.checksums import SIZES, new_checksum
from penstock.toolkit.requests.trailers import trailers_of

_FIELD = "upload-checksum"


class BodyChecksum:
    """What a body is to be compared with.

    Attributes:
        hasher: takes the body.
    """

    def __init__(self, request: Request, given: Checksum | None) -> None:
        self._request = request
        self._given = given
        # Which algorithm a trailer will be of is known when it is there.
        self.hasher = Hasher(others={name: new_checksum(name) for name in ([given.algorithm] if given else SIZES)})

    @classmethod
    def of(cls, request: Request) -> Self | None:
        """Return what a request's body is to be compared with, or None.

        Raises:
            TusError: the field cannot be read, or is of an algorithm that is not computed here.
        """
        value = request.headers.get(_FIELD)
        if value is not None:
            return cls(request, tus.parse_checksum(value, SIZES))
        announced = {name.strip().lower() for name in request.headers.get("trailer", "").split(",")}
        return cls(request, None) if _FIELD in announced and trailers_of(request) is not None else None

    def check(self) -> None:
        """Compare, once all of the body was taken.

        Raises:
            RequestError: ``checksum-mismatch`` (460); or the trailer is missing.
            TusError: the trailer cannot be read, or is of an algorithm that is not computed here.
        """
        given = self._given or tus.parse_checksum(self._trailer(), SIZES)
        if self.hasher.digests()[given.algorithm] != given.digest:
            raise RequestError(
                "checksum-mismatch",
                tus.CHECKSUM_MISMATCH,
                f"The {given.algorithm} checksum is not that of the bytes that arrived: none of them was kept.",
            )

    def _trailer(self) -> str:
        for name, value in trailers_of(self._request) or ():
            if name == _FIELD.encode():
                return value.decode("latin-1")
        raise bad_request("The trailer field Upload-Checksum was announced, and did not come: nothing was kept.")
