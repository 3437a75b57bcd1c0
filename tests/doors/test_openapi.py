"""The OpenAPI document: valid, and true."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from openapi_spec_validator import validate

from penstock import Streams
from servers import Server
from wire import request


def document() -> dict[str, Any]:
    streams = Streams(":memory:")
    app = FastAPI()
    app.include_router(streams.files(prefix="/a/files"))
    app.include_router(streams.files(prefix="/b/files", tags=["other"]))
    app.include_router(streams.live())
    return app.openapi()


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    paths: dict[str, dict[str, Any]] = document()["paths"]
    return {(method, path): told for path, item in paths.items() for method, told in item.items()}


def test_the_document_is_valid() -> None:
    validate(document())


def test_of_several_routers_every_operation_has_an_id_of_its_own() -> None:
    identities = [told["operationId"] for told in operations().values()]
    assert len(set(identities)) == len(identities) == 5 + 5 + 2


def test_what_is_told_is_what_there_is_and_no_more() -> None:
    found = {key: set(told["responses"]) for key, told in operations().items()}
    refusals = {"400", "409", "412", "413", "507", "default"}
    assert found["put", "/a/files/{name}"] == {"200", "201", *refusals}
    assert found["post", "/a/files/"] == {"201", *refusals}
    assert found["get", "/a/files/{name}"] == {"200", "206", "304", "404", "412", "416", "default"}
    assert found["delete", "/a/files/{name}"] == {"204", "404", "412", "default"}
    assert found["get", "/a/files/"] == {"200", "400", "default"}
    assert {"200", "204", "404", "410"} < found["get", "/live/{name}"]
    assert {"200", "201", "403", "409", "413", "415", "422"} < found["post", "/live/{name}"]
    for told in operations().values():
        assert told["tags"]
        assert told["summary"]
        assert all("HTTPValidationError" not in str(answer) for answer in told["responses"].values())


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("put", "/files/{name}", b"x", 201),
        ("put", "/files/{name}", b"x", 200),
        ("get", "/files/", None, 200),
        ("get", "/files/?limit=x", None, 400),
        ("post", "/files/", b"x", 201),
        ("post", "/live/{name}", b"1", 201),
        ("post", "/live/{name}", b"1", 200),
        ("post", "/live/{name}", b"{", 422),
    ],
)
async def test_an_answer_has_the_members_that_are_told(
    server: Server, name: str, method: str, path: str, body: bytes | None, status: int
) -> None:
    told = (await request(server.port, "GET", "/openapi.json")).json()["paths"][path.partition("?")[0]][method]
    target, headers = path.replace("{name}", name), {"content-type": "application/json"}
    if status == 200 and body:
        await request(server.port, method.upper(), target, body, headers)
    answer = await request(server.port, method.upper(), target, body, headers)
    assert answer.status == status
    content = told["responses"][str(status)]["content"]
    schema = content[answer.headers["content-type"]]["schema"]
    if status < 400:
        assert set(answer.json()) == set(schema["properties"])
        if "streams" in answer.json():
            assert all(
                set(stream) == set(schema["properties"]["streams"]["items"]["properties"])
                for stream in answer.json()["streams"]
            )
    else:
        assert set(schema["required"]) <= set(answer.json()) <= set(schema["properties"])
