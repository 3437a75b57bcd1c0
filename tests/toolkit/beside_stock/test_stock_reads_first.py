"""Whoever may not send anything: stock takes the whole body before it asks; ours asks before it takes a byte."""

# Without the future import: FastAPI cannot see what these functions' annotations name.

import asyncio
from collections.abc import MutableMapping
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, UploadFile
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from applications import serving
from penstock.toolkit.problems import install_problem_handlers
from penstock.toolkit.requests.dependency import StreamBody, stream_body
from penstock.toolkit.requests.form_fields import to_folder
from penstock.toolkit.requests.form_models import Form, form_model
from penstock.toolkit.requests.forms import StreamForm, UploadedFile, stream_form
from wire import Connection

FORM = "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
SIZE = 1_000_000_000


class Upload(BaseModel):
    file: Annotated[UploadedFile, to_folder("/nowhere")]


def nobody() -> None:
    raise HTTPException(401)


Nobody = Depends(nobody)
upload_form = form_model(Upload)


class Counting:
    """An application, and how many bytes of bodies it asked for."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.received = 0
        install_problem_handlers(self.app)

        @self.app.post("/stock/file", dependencies=[Nobody])
        async def stock_file(file: UploadFile) -> None: ...

        @self.app.post("/stock/json", dependencies=[Nobody])
        async def stock_json(data: dict[str, Any]) -> None: ...

        @self.app.post("/ours/body", dependencies=[Nobody])
        async def ours_body(body: Annotated[StreamBody, Depends(stream_body())]) -> None:
            await body.read()

        @self.app.post("/ours/parts", dependencies=[Nobody])
        async def ours_parts(form: Annotated[StreamForm, Depends(stream_form())]) -> None:
            await anext(form)

        @self.app.post("/ours/form", dependencies=[Nobody])
        async def ours_form(form: Annotated[Form[Upload], Depends(upload_form)]) -> None:
            await form.read()

        @self.app.post("/ours/form/last")
        async def form_first(form: Annotated[Form[Upload], Depends(upload_form)], user: None = Nobody) -> None:
            await form.read()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answered = False

        async def counted() -> MutableMapping[str, Any]:
            message = await receive()
            # What comes after the answer is thrown away: that is how the answer gets through to who is sending.
            self.received += len(message.get("body", b"")) if not answered else 0
            return message

        async def noticed(message: MutableMapping[str, Any]) -> None:
            nonlocal answered
            answered = True
            await send(message)

        await self.app(scope, counted, noticed)


@pytest.mark.parametrize("path", ["/ours/body", "/ours/parts", "/ours/form", "/ours/form/last"])
async def test_ours_refuses_before_a_byte_is_read(path: str) -> None:
    application = Counting()
    async with serving(application) as port, Connection(port) as connection:
        await connection.begin("POST", path, {"content-type": FORM, "content-length": str(SIZE)})
        await connection.write(PART + bytes(100_000))
        assert (await connection.answer()).status == 401
    assert application.received == 0


@pytest.mark.parametrize(("path", "kind"), [("/stock/file", FORM), ("/stock/json", "application/json")])
async def test_stock_takes_what_there_is_and_waits_for_the_rest(path: str, kind: str) -> None:
    application = Counting()
    async with serving(application) as port, Connection(port) as connection:
        await connection.begin("POST", path, {"content-type": kind, "content-length": str(SIZE)})
        await connection.write(PART + bytes(100_000))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.head(), 0.5)
    assert application.received == len(PART) + 100_000


async def test_both_refuse_in_the_end() -> None:
    body = PART + bytes(100_000) + b"\r\n--x--\r\n"
    async with serving(Counting()) as port:
        for path in ("/stock/file", "/ours/parts"):
            async with Connection(port) as connection:
                assert (await connection.request("POST", path, body, {"content-type": FORM})).status == 401


async def test_a_client_that_asks_first_sends_nothing_to_ours_and_all_of_it_to_stock() -> None:
    async with serving(Counting()) as port:
        for path, asked_for in (("/ours/form", 401), ("/stock/file", 100)):
            async with Connection(port) as connection:
                headers = {"content-type": FORM, "content-length": str(SIZE), "expect": "100-continue"}
                await connection.begin("POST", path, headers)
                assert await connection.head() == asked_for
