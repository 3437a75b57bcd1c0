"""Forms whose parts stream as they arrive, on a real server."""

# Without the future import: FastAPI cannot see what these functions' annotations name.

import asyncio
import hashlib
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException
from openapi_spec_validator import validate
from starlette.requests import ClientDisconnect

from applications import serving
from conftest import tool
from form_bodies import END, TYPE, names_in, part
from penstock import Streams
from penstock.model import Buffer
from penstock.toolkit.problems import install_problem_handlers
from penstock.toolkit.requests.forms import FormOptions, Part, StreamForm, stream_form
from penstock.toolkit.requests.limits import Pace
from wire import Answer, Connection, until

Handle = Callable[[StreamForm], Awaitable[Any]]


@asynccontextmanager
async def serving_form(handle: Handle, *, problems: bool = True, **limits: Any) -> AsyncIterator[int]:
    app = FastAPI()
    if problems:
        install_problem_handlers(app)
    options: FormOptions = limits  # type: ignore[assignment]
    dependency = stream_form(**options)

    @app.post("/", openapi_extra=dependency.docs)
    async def upload(form: Annotated[StreamForm, Depends(dependency)]) -> Any:
        return await handle(form)

    async with serving(app) as port:
        yield port


async def post(port: int, body: bytes, content_type: str = TYPE, **headers: str) -> Answer:
    async with Connection(port) as connection:
        return await connection.request("POST", "/", body, {"content-type": content_type, **headers})


async def listed(form: StreamForm) -> list[Any]:
    return [[one.name, one.filename, one.is_file, one.content_type, await one.text()] async for one in form]


async def curl(port: int, *arguments: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        tool("curl"), "--silent", "--show-error", *arguments, f"http://127.0.0.1:{port}/", stdout=subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output


# -- parts ------------------------------------------------------------------------------------------------------------


async def test_parts_come_in_order_with_what_their_headers_say() -> None:
    body = part("title", "größe".encode()) + part("f", b"1,2", "a.csv", "Content-Type: text/csv") + END
    async with serving_form(listed) as port:
        answer = await post(port, body)
    assert answer.json() == [
        ["title", "", False, "text/plain", "größe"],
        ["f", "a.csv", True, "text/csv", "1,2"],
    ]


async def test_a_part_arrives_before_the_body_ends() -> None:
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def handle(form: StreamForm) -> int:
        size = 0
        async for one in form:
            async for chunk in one:
                await arrived.put(chunk)
                size += len(chunk)
        return size

    async with serving_form(handle) as port, Connection(port) as connection:
        await connection.begin("POST", "/", {"content-type": TYPE, "transfer-encoding": "chunked"})
        await connection.write_chunk(part("f", b"", "f")[:-2] + b"one")
        assert await arrived.get() == b"one"
        await connection.write_chunk(b"two")
        assert await arrived.get() == b"two"
        await connection.write_chunk(b"\r\n" + END)
        await connection.write_chunk(b"")
        assert (await connection.answer()).body == b"6"


async def test_a_part_that_is_not_read_is_skipped() -> None:
    async def handle(form: StreamForm) -> list[str]:
        texts = []
        async for one in form:
            if one.name == "begun":
                await anext(one)
            elif one.name == "read":
                texts.append(await one.text())
        return texts

    body = part("skipped", b"x" * 300_000, "f") + part("begun", b"y" * 300_000, "f") + part("read", b"text") + END
    async with serving_form(handle) as port:
        assert (await post(port, body)).json() == ["text"]


async def test_a_part_is_gone_when_the_next_one_was_asked_for(tmp_path: Path) -> None:
    async def handle(form: StreamForm) -> str:
        first = await anext(form)
        second = await anext(form)
        assert await second.read() == b"2"
        with pytest.raises(RuntimeError, match="skipped"):
            await first.read()
        with pytest.raises(RuntimeError, match="skipped"):
            await anext(first)
        with pytest.raises(RuntimeError, match="once"):
            await second.save(tmp_path / "again")
        assert [chunk async for chunk in second] == []
        return "told"

    async with serving_form(handle) as port:
        assert (await post(port, part("a", b"1") + part("b", b"2") + END)).json() == "told"
    assert names_in(tmp_path) == []


async def test_nothing_is_read_before_the_handler_asks() -> None:
    begun = asyncio.Event()

    async def handle(form: StreamForm) -> str:
        assert form.body.received == 0
        begun.set()
        await asyncio.sleep(0.1)
        assert form.body.received == 0
        return "unread"

    async with serving_form(handle) as port, Connection(port) as connection:
        # A client that waits for "100 Continue" is told to go on by the first read only.
        head = {"content-type": TYPE, "content-length": "1000000000", "expect": "100-continue"}
        await connection.begin("POST", "/", head)
        await begun.wait()
        assert (await connection.answer()).json() == "unread"


@pytest.mark.parametrize("form_first", [True, False])
async def test_whoever_is_refused_sends_nothing(form_first: bool) -> None:
    app = FastAPI()
    install_problem_handlers(app)
    forms: list[StreamForm] = []

    def authorized() -> None:
        raise HTTPException(401, "Who are you?")

    dependency = stream_form()

    async def watched(form: Annotated[StreamForm, Depends(dependency)]) -> StreamForm:
        forms.append(form)
        return form

    order = [Depends(watched), Depends(authorized)]

    @app.post("/", dependencies=order if form_first else order[::-1])
    async def upload(form: Annotated[StreamForm, Depends(watched)]) -> None:
        raise AssertionError

    async with serving(app) as port, Connection(port) as connection:
        await connection.begin("POST", "/", {"content-type": TYPE, "content-length": "1000000000"})
        await connection.write(part("f", b"x" * 1000, "f")[:-2])
        assert (await connection.answer()).status == 401
    assert len(forms) == form_first
    assert all(form.body.received == 0 for form in forms)


# -- clients ----------------------------------------------------------------------------------------------------------


async def test_curl(tmp_path: Path) -> None:
    (tmp_path / "naïve.txt").write_text("text")
    (tmp_path / 'a"b.bin').write_bytes(bytes(range(256)) * 1000)

    async def handle(form: StreamForm) -> list[Any]:
        return [[one.name, one.filename, hashlib.sha256(await one.read()).hexdigest()] async for one in form]

    async with serving_form(handle) as port:
        files = [f"-Ff=@{tmp_path / 'naïve.txt'}", f'-Fg=@"{tmp_path}/a\\"b.bin"']
        found = json.loads(await curl(port, "-F", "title=A title", *files))
    digests = [hashlib.sha256(data).hexdigest() for data in (b"A title", b"text", bytes(range(256)) * 1000)]
    assert found == [["title", "", digests[0]], ["f", "naïve.txt", digests[1]], ["g", 'a"b.bin', digests[2]]]


async def test_httpx() -> None:
    async with serving_form(listed) as port, httpx.AsyncClient() as client:
        files = [("f", ("größe.txt", b"1", "text/plain")), ("f", ("b.txt", b"2", "text/plain"))]
        answer = await client.post(f"http://127.0.0.1:{port}/", data={"a": "1", "b": ["2", "3"]}, files=files)
    assert answer.json() == [
        ["a", "", False, "text/plain", "1"],
        ["b", "", False, "text/plain", "2"],
        ["b", "", False, "text/plain", "3"],
        ["f", "größe.txt", True, "text/plain", "1"],
        ["f", "b.txt", True, "text/plain", "2"],
    ]


async def test_a_coded_form() -> None:
    import gzip

    body = gzip.compress(part("f", b"x" * 100_000, "f") + END)
    async with serving_form(listed) as port:
        answer = await post(port, body, **{"content-encoding": "gzip"})
        assert answer.json()[0][4] == "x" * 100_000


# -- where parts go ---------------------------------------------------------------------------------------------------


async def test_files_are_saved(tmp_path: Path) -> None:
    data = bytes(range(256)) * 20_000

    async def handle(form: StreamForm) -> list[Any]:
        saved = [await one.save(tmp_path / one.filename, digests=["sha-256"]) async for one in form if one.is_file]
        return [[one.filename, one.size, one.content_type, one.digests["sha-256"].hex()] for one in saved]

    body = part("t", b"x") + part("f", data, "../../a.bin", "Content-Type: image/x") + part("f", b"", "b") + END
    async with serving_form(handle) as port:
        answer = await post(port, body)
    digests = [hashlib.sha256(one).hexdigest() for one in (data, b"")]
    assert answer.json() == [
        ["a.bin", len(data), "image/x", digests[0]],
        ["b", 0, "application/octet-stream", digests[1]],
    ]
    assert (tmp_path / "a.bin").read_bytes() == data
    assert names_in(tmp_path) == ["a.bin", "b"]


async def test_a_file_is_not_overwritten_if_it_must_not_be(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    async def handle(form: StreamForm) -> list[str]:
        results = []
        async for one in form:
            try:
                await one.save(tmp_path / one.filename, overwrite=False)
                results.append("saved")
            except FileExistsError:
                results.append("exists")
        return results

    async with serving_form(handle) as port:
        answer = await post(port, part("f", b"new", "a") + part("f", b"new", "b") + END)
    assert answer.json() == ["exists", "saved"]
    assert names_in(tmp_path) == ["a", "b"]
    assert [(tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()] == [b"old", b"new"]


async def test_parts_become_streams(tmp_path: Path) -> None:
    async with Streams(tmp_path / "data") as streams:

        async def handle(form: StreamForm) -> list[Any]:
            infos = [await one.into(streams, f"in/{one.filename}") async for one in form]
            return [[info.name, info.tail, info.content_type, info.metadata, info.complete] for info in infos]

        body = part("f", b"x" * 1_000_000, "a", "Content-Type: image/png") + part("f", b"", "b") + END
        async with serving_form(handle) as port:
            answer = await post(port, body)
        assert answer.json() == [
            ["in/a", 1_000_000, "image/png", {"filename": "a"}, True],
            ["in/b", 0, "application/octet-stream", {"filename": "b"}, True],
        ]
        assert b"".join([bytes(chunk.data) async for chunk in streams.read("in/a")]) == b"x" * 1_000_000


async def test_a_part_goes_to_an_async_function() -> None:
    async def handle(form: StreamForm) -> int:
        taken = 0

        async def take(data: Sequence[Buffer]) -> None:
            nonlocal taken
            taken += sum(map(len, data))

        return sum([await one.pump(take) async for one in form]) + taken

    async with serving_form(handle) as port:
        assert (await post(port, part("f", b"x" * 500_000, "f") + END)).json() == 1_000_000


async def test_a_slow_reader_holds_the_client_back() -> None:
    released = asyncio.Event()

    async def handle(form: StreamForm) -> int:
        async for one in form:
            async for _ in one:
                await released.wait()
        return form.body.received

    size = 64 * 1024 * 1024
    async with serving_form(handle) as port, Connection(port) as connection:
        body = part("f", bytes(size), "f") + END
        await connection.begin("POST", "/", {"content-type": TYPE, "content-length": str(len(body))})
        writing = asyncio.create_task(connection.write(body))
        done, _ = await asyncio.wait({writing}, timeout=0.5)
        assert not done
        released.set()
        await writing
        assert (await connection.answer()).json() == len(body)


# -- refusals ---------------------------------------------------------------------------------------------------------


async def read_all(form: StreamForm) -> int:
    count = 0
    async for one in form:
        async for _ in one:
            pass
        count += 1
    return count


def problem(answer: Answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status, answer.json()["type"].rpartition("/")[2]


FIELD = part("a", b"1")


@pytest.mark.parametrize(
    ("body", "content_type", "status", "slug"),
    [
        pytest.param(b"{}", "application/json", 415, "unsupported-media-type", id="json"),
        pytest.param(b"a=1", "application/x-www-form-urlencoded", 415, "unsupported-media-type", id="urlencoded"),
        pytest.param(FIELD + END, "multipart/form-data", 400, "bad-request", id="no boundary"),
        pytest.param(FIELD + END, "multipart/form-data; boundary=x", 400, "bad-request", id="another boundary"),
        pytest.param(FIELD, TYPE, 400, "body-incomplete", id="no end"),
        pytest.param(b"", TYPE, 400, "body-incomplete", id="nothing"),
        pytest.param((FIELD + END).replace(b"\r\n", b"\n"), TYPE, 400, "bad-request", id="bare line feeds"),
        pytest.param(part("f", b"", None, *["X-Y: z"] * 100) + END, TYPE, 413, "too-large", id="100 headers"),
        pytest.param(part("f", b"x" * 2_000_000) + END, TYPE, 413, "too-large", id="2 MB field"),
        pytest.param(
            part("f", b"", None, "Content-Type: multipart/mixed; boundary=x") + END,
            TYPE,
            415,
            "unsupported-media-type",
            id="nested",
        ),
        pytest.param(
            part("f", b"", None, "Content-Transfer-Encoding: base64") + END,
            TYPE,
            415,
            "unsupported-media-type",
            id="base64",
        ),
    ],
)
async def test_refusals(body: bytes, content_type: str, status: int, slug: str) -> None:
    async with serving_form(read_all) as port:
        started = asyncio.get_running_loop().time()
        assert problem(await post(port, body, content_type)) == (status, slug)
        assert asyncio.get_running_loop().time() - started < 5


@pytest.mark.parametrize(
    ("limits", "body"),
    [
        ({"max_size": 1000}, part("f", b"x" * 1000, "f") + END),
        ({"max_file_size": 999}, part("f", b"x" * 1000, "f") + END),
        ({"max_field_size": 999}, part("f", b"x" * 1000) + END),
        ({"max_files": 2}, part("f", b"", "f") * 3 + END),
        ({"max_fields": 2}, FIELD * 3 + END),
        ({"max_header_size": 100}, part("f" * 100, b"") + END),
    ],
)
async def test_limits_that_are_set(limits: dict[str, Any], body: bytes) -> None:
    async with serving_form(read_all, **limits) as port:
        answer = await post(port, body)
        assert problem(answer) == (413, "too-large")
    async with serving_form(read_all) as port:
        assert (await post(port, body)).status == 200


async def test_a_text_that_is_none() -> None:
    async with serving_form(listed) as port:
        assert problem(await post(port, part("a", b"\xff") + END)) == (400, "bad-request")
        latin = part("a", b"\xff", None, "Content-Type: text/plain; charset=iso-8859-1")
        assert (await post(port, latin + END)).json()[0][4] == "ÿ"
        odd = part("a", b"", None, "Content-Type: text/plain; charset=zlib")
        assert problem(await post(port, odd + END)) == (415, "unsupported-media-type")


async def test_an_application_that_knows_no_problems_answers_in_its_own_form() -> None:
    async with serving_form(read_all, problems=False) as port:
        answer = await post(port, FIELD)
        assert answer.status == 400
        assert answer.json() == {"detail": "The body ended before the form's last delimiter."}


async def test_a_client_that_stops_sending() -> None:
    async with serving_form(read_all, pace=Pace(idle=0.2)) as port, Connection(port) as connection:
        await connection.begin("POST", "/", {"content-type": TYPE, "content-length": "1000"})
        await connection.write(FIELD)
        assert problem(await connection.answer()) == (408, "too-slow")


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_client_that_goes_leaves_no_file(tmp_path: Path, chunked: bool) -> None:
    ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def handle(form: StreamForm) -> None:
        try:
            async for one in form:
                await one.save(tmp_path / one.filename)
        except BaseException as error:
            ended.set_result(error)
            raise

    async def partial() -> bool:
        return any((tmp_path / name).stat().st_size >= 500_000 for name in names_in(tmp_path))

    async with serving_form(handle) as port, Connection(port) as connection:
        body = part("f", b"x" * 1_000_000, "f")
        framing = {"transfer-encoding": "chunked"} if chunked else {"content-length": "1000000000"}
        await connection.begin("POST", "/", {"content-type": TYPE, **framing})
        await (connection.write_chunk(body[:-2]) if chunked else connection.write(body[:-2]))
        await until(partial, expected=True)
        connection.close()
        assert isinstance(await ended, ClientDisconnect)
    assert names_in(tmp_path) == []


async def test_a_cut_form_leaves_no_file_of_the_part_that_was_cut(tmp_path: Path) -> None:
    async def handle(form: StreamForm) -> None:
        async for one in form:
            await one.save(tmp_path / one.filename)

    body = part("f", b"1" * 1000, "whole") + part("f", b"2" * 1000, "cut")[:-500]
    async with serving_form(handle) as port:
        assert problem(await post(port, body)) == (400, "body-incomplete")
    assert names_in(tmp_path) == ["whole"]


async def test_an_error_is_told_again_to_whoever_goes_on() -> None:
    async def handle(form: StreamForm) -> list[str]:
        found = []
        for _ in range(3):
            try:
                await read_all(form)
            except Exception as error:  # noqa: BLE001 - any of them
                found.append(type(error).__name__)
        return found

    async with serving_form(handle) as port:
        assert (await post(port, FIELD)).json() == ["RequestError"] * 3


async def test_a_read_that_was_given_up_is_no_end() -> None:
    async def handle(form: StreamForm) -> str:
        one = await anext(form)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await one.read()
        with pytest.raises(Exception, match="given up"):
            await anext(form)
        return "told"

    async with serving_form(handle) as port, Connection(port) as connection:
        await connection.begin("POST", "/", {"content-type": TYPE, "content-length": "1000"})
        await connection.write(FIELD[:-3])
        assert (await connection.answer()).json() == "told"


async def test_a_part_that_outlives_its_request_is_no_whole_part(tmp_path: Path) -> None:
    kept: list[Part] = []

    async def handle(form: StreamForm) -> None:
        kept.append(await anext(form))

    async with serving_form(handle) as port:
        assert (await post(port, part("f", b"x" * 1_000_000, "f") + END)).status == 200
    with pytest.raises(RuntimeError, match="within the handler"):
        await kept[0].save(tmp_path / "f")
    assert names_in(tmp_path) == []


# -- documentation ----------------------------------------------------------------------------------------------------


def test_openapi_shows_a_form() -> None:
    app = FastAPI()
    dependency = stream_form()

    @app.post("/", openapi_extra=dependency.docs)
    async def upload(form: Annotated[StreamForm, Depends(dependency)]) -> None: ...

    document = app.openapi()
    validate(document)
    assert list(document["paths"]["/"]["post"]["requestBody"]["content"]) == ["multipart/form-data"]
