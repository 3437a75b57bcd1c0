"""Files of forms: stock spools them in memory and in the temporary folder; ours go to where they belong."""

# Without the future import: FastAPI cannot see what these functions' annotations name.

import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, UploadFile

from applications import serving
from disks import small_disk
from penstock.toolkit.problems import install_problem_handlers
from penstock.toolkit.requests.forms import StreamForm, stream_form
from wire import Connection

B = "bound-ary"
TYPE = f"multipart/form-data; boundary={B}"
HEAD = f'--{B}\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n'.encode()
END = f"\r\n--{B}--\r\n".encode()
MIB = bytes(1024 * 1024)

Build = Callable[[Path], FastAPI]


def ours(folder: Path) -> FastAPI:
    app = FastAPI()
    install_problem_handlers(app)

    @app.post("/")
    async def upload(form: Annotated[StreamForm, Depends(stream_form())]) -> int:
        return sum([(await part.save(folder / "x")).size async for part in form])

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

    return app


@pytest.mark.parametrize(("build", "status"), [(ours, 200), (stock, 400)])
async def test_room_is_needed_only_where_the_file_goes(
    tmp_path: Path, build: Build, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "tmp", "1m") as temporary:
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        async with serving(build(tmp_path)) as port, Connection(port) as connection:
            answer = await connection.request("POST", "/", HEAD + MIB * 3 + END, {"content-type": TYPE})
    assert answer.status == status
    if build is stock:  # which is all that anybody is told
        assert answer.json() == {"detail": "There was an error parsing the body"}


async def test_where_there_is_none_that_is_what_the_client_is_told(tmp_path: Path) -> None:
    with small_disk(tmp_path / "full", "1m") as folder:
        async with serving(ours(folder)) as port, Connection(port) as connection:
            answer = await connection.request("POST", "/", HEAD + MIB * 3 + END, {"content-type": TYPE})
        assert list(folder.iterdir()) == []
    assert (answer.status, answer.json()["title"]) == (507, "The storage is full")


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
