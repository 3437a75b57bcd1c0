"""What FastAPI's own forms do with files, and what ours do, side by side."""

# Without the future import: FastAPI cannot see what these functions' annotations name.

import asyncio
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, HTTPException, UploadFile

from applications import serving
from penstock.toolkit.problems import install_problem_handlers
from penstock.toolkit.requests.forms import StreamForm, stream_form
from wire import Connection

B = "bound-ary"
TYPE = f"multipart/form-data; boundary={B}"
HEAD = f'--{B}\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n'.encode()
END = f"\r\n--{B}--\r\n".encode()
MIB = bytes(1024 * 1024)

Build = Callable[[Path], FastAPI]


def refuse() -> None:
    raise HTTPException(401)


def ours(folder: Path) -> FastAPI:
    app = FastAPI()
    install_problem_handlers(app)

    @app.post("/")
    async def upload(form: Annotated[StreamForm, Depends(stream_form())]) -> int:
        return sum([(await part.save(folder / "x")).size async for part in form])

    @app.post("/refused")
    async def refused(
        user: Annotated[None, Depends(refuse)], form: Annotated[StreamForm, Depends(stream_form())]
    ) -> None: ...

    return app


def stock(folder: Path) -> FastAPI:
    app = FastAPI()

    @app.post("/")
    async def upload(files: list[UploadFile]) -> int:
        for file in files:
            with (folder / "x").open("wb") as target:
                while data := await file.read(1024 * 1024):
                    target.write(data)
        return sum(file.size or 0 for file in files)

    @app.post("/refused")
    async def refused(user: Annotated[None, Depends(refuse)], files: list[UploadFile]) -> None: ...

    return app


@pytest.mark.parametrize(("build", "answers"), [(ours, True), (stock, False)])
async def test_whoever_is_refused_need_not_send_the_form(tmp_path: Path, build: Build, answers: bool) -> None:
    async with serving(build(tmp_path)) as port, Connection(port) as connection:
        await connection.begin("POST", "/refused", {"content-type": TYPE, "content-length": "1000000000"})
        await connection.write(HEAD + MIB)
        if answers:
            assert (await connection.answer()).status == 401
        else:
            with pytest.raises(TimeoutError):  # it waits for the rest, which is then thrown away
                await asyncio.wait_for(connection.head(), 0.5)


@pytest.mark.parametrize(("build", "status"), [(ours, 200), (stock, 400)])
async def test_no_room_is_needed_elsewhere(
    tmp_path: Path, build: Build, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "there is no such folder"))
    body = HEAD + MIB + MIB + END
    async with serving(build(tmp_path)) as port, Connection(port) as connection:
        assert (await connection.request("POST", "/", body, {"content-type": TYPE})).status == status


@pytest.mark.parametrize(("build", "flat"), [(ours, True), (stock, False)])
async def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path, build: Build, flat: bool) -> None:
    count = 64
    async with serving(build(tmp_path)) as port, Connection(port) as connection:
        tracemalloc.start()
        try:
            await connection.begin("POST", "/", {"content-type": TYPE, "transfer-encoding": "chunked"})
            for _ in range(count):
                await connection.write_chunk(HEAD)
                await connection.write_chunk(MIB)
                await connection.write_chunk(b"\r\n")
            await connection.write_chunk(END[2:])
            await connection.write_chunk(b"")
            assert (await connection.answer()).json() == count * len(MIB)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (peak < 20 * len(MIB)) == flat
