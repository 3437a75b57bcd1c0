"""Request bodies of any size, as a parameter: nothing is read before the handler asks for it.

::

    @app.post("/upload")
    async def upload(
        user: Annotated[User, Depends(current_user)],  # who is refused here sends no body
        body: Annotated[StreamBody, Depends(stream_body(max_size=10 * GiB))],
    ) -> ...:
        saved = await body.save("/srv/files/x.bin", fsync=True)
"""

# Without the future import: FastAPI reads these annotations off an object, not a function, and needs them as they are.

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any

from starlette.requests import Request

from penstock.toolkit.problems import answered
from penstock.toolkit.requests.body import DEFAULT_SIZE, BodyLimits, GiB, KiB, MiB, StreamBody, refusals_of
from penstock.toolkit.requests.decoding import MAX_RATIO
from penstock.toolkit.requests.limits import Pace
from penstock.toolkit.requests.openapi import ReadsBody
from penstock.toolkit.requests.schemas import schema_of

__all__ = [
    "DEFAULT_SIZE",
    "BodyDependency",
    "BodyLimits",
    "GiB",
    "KiB",
    "MiB",
    "StreamBody",
    "body_docs",
    "stream_body",
]


class BodyDependency(ReadsBody):
    """What `stream_body` returns: a dependency that yields a `StreamBody`.

    Attributes:
        limits: what is accepted.
        docs: what the OpenAPI document says of the body; see `ReadsBody`.
        refusals: why what statuses may be answered on account of it.
    """

    def __init__(self, limits: BodyLimits, docs: dict[str, Any], refusals: Mapping[int, str]) -> None:
        self.limits = limits
        self.docs = docs
        self.refusals = refusals

    async def __call__(self, request: Request) -> AsyncGenerator[StreamBody, None]:
        """Look at the request's head, and hand out its body. Nothing of it is read."""
        with answered(request):
            yield StreamBody(request, self.limits)


def stream_body(
    *,
    max_size: int | None = DEFAULT_SIZE,
    max_ratio: float | None = MAX_RATIO,
    decode: bool = True,
    idle: float | None = 60.0,
    min_rate: float | None = 64.0,
    grace: float = 30.0,
    content: Mapping[str, Any] | Iterable[str] = ("*/*",),
) -> BodyDependency:
    """Return a dependency that gives a handler the request's body as a `StreamBody`.

    Nothing of the body is read before the handler asks for it, whoever refuses the request before. What the request's
    head tells already is refused when the dependency is reached: put those that authorize before it.

    Errors of penstock that the handler does not catch become answers: problems (RFC 9457) in an application with
    `install_problem_handlers` or on a `ProblemRoute`, otherwise FastAPI's own ``{"detail": ...}`` of the same status.
    Only the former also make sure that a client that is still sending gets the answer.

    Args:
        max_size: the most bytes, both as they are sent and as they decode; None for no limit.
        max_ratio: how many times its size a coded body may decode to; None for no limit. The first MiB is free.
        decode: whether ``Content-Encoding`` is taken and decoded; otherwise it is refused.
        idle: seconds that may pass without a byte; None for no limit.
        min_rate: bytes a second that must arrive on average; None for no limit.
        grace: seconds that the sender may fall behind ``min_rate``.
        content: the media types, for the OpenAPI document, perhaps with the type of an item each; see `body_docs`.
    """
    limits = BodyLimits(
        max_size=max_size, max_ratio=max_ratio, decode=decode, pace=Pace(idle=idle, min_rate=min_rate, grace=grace)
    )
    refusals = refusals_of(limits)
    if isinstance(content, Mapping) and any(item is not None for item in content.values()):
        refusals[422] = "A record is not valid"
    else:
        refusals[507] = "There is no room to keep the body"
    return BodyDependency(limits, body_docs(content), refusals)


def body_docs(content: Mapping[str, Any] | Iterable[str] = ("*/*",), *, description: str = "") -> dict[str, Any]:
    """Return what FastAPI cannot see in a handler's signature: its body, for ``openapi_extra``.

    `stream_body` takes the same description, and shows it by itself where it can: see `ReadsBody`.

    ::

        @app.post("/readings", openapi_extra=body_docs({"application/x-ndjson": Reading, "text/csv": None}))

    Args:
        content: the media types; perhaps with the type of an item each (a model, a dataclass, whatever pydantic knows),
            from which the schema is made. Without one, the body is bytes.
        description: in words.
    """
    types = content if isinstance(content, Mapping) else dict.fromkeys(content)
    body: dict[str, Any] = {
        "required": True,
        "content": {media_type: {"schema": _schema(media_type, item)} for media_type, item in types.items()},
    }
    if description:
        body["description"] = description
    return {"requestBody": body}


def _schema(media_type: str, item: Any) -> dict[str, Any]:
    if item is None:
        return {"type": "string", "format": "binary"}
    schema = schema_of(item)
    if media_type == "application/json":
        return {"type": "array", "items": schema}
    # OpenAPI 3.1 has no word for a sequence of items that are no JSON array: it describes one of them.
    return {"type": "string", "contentMediaType": media_type, "contentSchema": schema}
