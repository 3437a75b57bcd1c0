"""Forms described by a model, on a real server."""

# Without the future import: FastAPI cannot see what these functions' annotations name.

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from openapi_spec_validator import validate
from pydantic import BaseModel, ConfigDict, Field, Json, ValidationInfo, field_validator, model_validator

from applications import serving
from conftest import tool
from form_bodies import END, TYPE, names_in, part
from penstock import StreamInfo, Streams
from penstock.errors import StreamNotFound
from penstock.toolkit.problems import install_problem_handlers
from penstock.toolkit.requests.form_fields import to_folder, to_function, to_stream
from penstock.toolkit.requests.form_models import Form, form_model
from penstock.toolkit.requests.forms import Part, UploadedFile
from penstock.toolkit.requests.sinks import SavedFile
from wire import Answer, Connection, until

M = TypeVar("M", bound=BaseModel)


def application(model: type[M], handle: Callable[[Form[M]], Awaitable[Any]], **limits: Any) -> FastAPI:
    app = FastAPI()
    install_problem_handlers(app)
    dependency = form_model(model, **limits)

    @app.post("/", openapi_extra=dependency.docs)
    async def upload(form: Annotated[Form[M], Depends(dependency)]) -> Any:
        return await handle(form)

    return app


@asynccontextmanager
async def serving_model(
    model: type[M], handle: Callable[[Form[M]], Awaitable[Any]] | None = None, **limits: Any
) -> AsyncIterator[int]:
    async def dumped(form: Form[M]) -> Any:
        return (await form.read()).model_dump(mode="json")

    async with serving(application(model, handle or dumped, **limits)) as port:
        yield port


async def post(port: int, *parts: bytes, end: bytes = END) -> Answer:
    async with Connection(port) as connection:
        return await connection.request("POST", "/", b"".join(parts) + end, {"content-type": TYPE})


def refused(answer: Answer, status: int, slug: str) -> str:
    assert (answer.status, answer.json()["type"].rpartition("/")[2]) == (status, slug), answer.body
    return str(answer.json()["detail"])


# -- fields -----------------------------------------------------------------------------------------------------------


class Color(Enum):
    RED = "red"


class Plain(BaseModel):
    title: str
    count: int = 7
    tags: list[str] = []
    color: Color | None = None
    ready: bool = False
    data: Json[list[int]] = []
    aliased: str = Field("", alias="some-name")


async def test_fields_are_parsed_and_validated() -> None:
    async with serving_model(Plain) as port:
        answer = await post(
            port,
            part("title", "größe".encode()),
            part("count", b"3"),
            part("tags", b"a"),
            part("tags", b"b"),
            part("color", b"red"),
            part("ready", b"on"),
            part("data", b"[1,2]", "blob", "Content-Type: application/json"),
            part("some-name", b"x"),
            part("unknown", b"y" * 100_000, "unknown"),
        )
        assert answer.json() == {
            "title": "größe",
            "count": 3,
            "tags": ["a", "b"],
            "color": "red",
            "ready": True,
            "data": [1, 2],
            "aliased": "x",
        }
        answer = await post(port, part("title", b""), part("count", b""))
        assert (answer.json()["title"], answer.json()["count"]) == ("", 7)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([part("count", b"1")], "'title': Field required"),
        ([part("title", b"a"), part("count", b"x")], "'count': Input should be a valid integer"),
        ([part("title", b"a"), part("title", b"b")], "'title': The field was sent more than once"),
        ([part("title", b"a"), part("color", b"blue")], "'color': Input should be 'red'"),
        ([part("title", b"\xff")], "'title' is not text"),
    ],
)
async def test_fields_that_are_wrong(parts: list[bytes], told: str) -> None:
    async with serving_model(Plain) as port:
        assert told in refused(await post(port, *parts), 400, "bad-request")


async def test_without_problems_what_is_wrong_is_fastapis_own_answer() -> None:
    app = FastAPI()
    dependency = form_model(Plain)

    @app.post("/")
    async def upload(form: Annotated[Form[Plain], Depends(dependency)]) -> None:
        await form.read()

    async with serving(app) as port:
        answer = await post(port, part("count", b"x"))
        assert answer.status == 422
        assert answer.json()["detail"][0]["loc"] == ["body", "count"]
        assert answer.json()["detail"][0]["type"] == "int_parsing"


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: str = ""


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    title: str = ""


async def test_fields_that_the_model_has_not() -> None:
    async with serving_model(Closed) as port:
        assert "'more': Extra inputs" in refused(await post(port, part("more", b"x" * 2_000_000)), 400, "bad-request")
    async with serving_model(Open) as port:
        assert (await post(port, part("more", b"x"))).json() == {"title": "", "more": "x"}


async def test_an_invalid_field_stops_the_file_after_it(tmp_path: Path) -> None:
    class Upload(BaseModel):
        count: int
        file: Annotated[SavedFile, to_folder(tmp_path)]

    async with serving_model(Upload) as port, Connection(port) as connection:
        await connection.begin("POST", "/", {"content-type": TYPE, "content-length": "1000000000"})
        await connection.write(part("count", b"x") + part("file", b"y" * 1000, "file"))
        assert "'count': Input should be a valid integer" in refused(await connection.answer(), 400, "bad-request")
    assert names_in(tmp_path) == []


async def test_a_validator_of_the_models_own_is_asked_what_it_wants() -> None:
    class Split(BaseModel):
        numbers: int

        @field_validator("numbers", mode="before")
        @classmethod
        def _sum(cls, value: str) -> int:
            return sum(map(int, value.split(",")))

    async with serving_model(Split) as port:
        assert (await post(port, part("numbers", b"1,2,3"))).json() == {"numbers": 6}


# -- files ------------------------------------------------------------------------------------------------------------


async def test_files_go_into_a_folder(tmp_path: Path) -> None:
    class Upload(BaseModel):
        title: str
        file: Annotated[UploadedFile, to_folder(tmp_path / "one")]
        files: list[Annotated[UploadedFile, to_folder(tmp_path / "many", name=lambda part: part.filename)]] = []
        more: Annotated[list[UploadedFile], to_folder(tmp_path / "more")] = []
        maybe: Annotated[UploadedFile, to_folder(tmp_path / "maybe")] | None = None
        other: Annotated[UploadedFile | None, to_folder(tmp_path / "maybe")] = None

    data = bytes(range(256)) * 10_000
    async with serving_model(Upload) as port:
        answer = await post(
            port,
            part("file", data, "../a.bin", "Content-Type: image/x"),
            part("files", b"1", "x"),
            part("more", b"3", "z"),
            part("title", b"after the file"),
            part("files", b"22", "y"),
            part("maybe", b"", "", "Content-Type: application/octet-stream"),  # a file input that was left empty
        )
        found = answer.json()
        assert found["title"] == "after the file"
        assert found["file"]["filename"] == "a.bin"
        assert found["file"]["content_type"] == "image/x"
        path = Path(found["file"]["path"])
        assert path.parent == tmp_path / "one"
        assert path.suffix == ".bin"
        assert await asyncio.to_thread(path.read_bytes) == data
        assert [one["size"] for one in found["files"]] == [1, 2]
        assert names_in(tmp_path / "many") == ["x", "y"]
        assert len(found["more"]) == 1
        assert found["maybe"] is None

        again = await post(port, part("title", b""), part("file", b"", "a"), part("files", b"1", "x"))
        refused(again, 409, "file-exists")
        assert len(names_in(tmp_path / "one")) == 1


async def test_a_plain_html_form_with_several_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1" * 100_000)
    (tmp_path / "b").write_bytes(b"2")

    class Upload(BaseModel):
        title: str
        files: list[Annotated[UploadedFile, to_folder(tmp_path / "in", name=lambda part: part.filename)]]

    async with serving_model(Upload) as port:
        process = await asyncio.create_subprocess_exec(
            *(tool("curl"), "-sS", "-F", "title=x", "-F", f"files=@{tmp_path}/a", "-F", f"files=@{tmp_path}/b"),
            f"http://127.0.0.1:{port}/",
            stdout=subprocess.PIPE,
        )
        found = json.loads((await process.communicate())[0])
    assert [(one["filename"], one["size"]) for one in found["files"]] == [("a", 100_000), ("b", 1)]
    assert names_in(tmp_path / "in") == ["a", "b"]


async def test_files_become_streams(tmp_path: Path) -> None:
    async with Streams(tmp_path / "data") as streams:

        class Upload(BaseModel):
            file: Annotated[StreamInfo, to_stream(streams, prefix="in/", name=lambda part: part.filename)]
            files: list[Annotated[StreamInfo, to_stream(streams)]] = []

        async def handle(form: Form[Upload]) -> Any:
            upload = await form.read()
            return [[one.name, one.complete, one.published, one.tail] for one in [upload.file, *upload.files]]

        async with serving_model(Upload, handle) as port:
            answer = await post(port, part("files", b"1", "x"), part("file", b"2" * 1_000_000, "y"))
            assert answer.json()[0] == ["in/y", True, True, 1_000_000]
            assert answer.json()[1][1:] == [True, True, 1]
            assert (await streams.info("in/y")).metadata == {"filename": "y"}
            before = [info.name for info in (await streams.list()).streams]
            refused(
                await post(port, part("files", b"1", "x"), part("file", b"2", "z"), end=b""), 400, "body-incomplete"
            )
            assert [info.name for info in (await streams.list()).streams] == before


async def test_parts_go_to_a_function() -> None:
    async def lines(part: Part) -> int:
        return sum([chunk.count(b"\n") async for chunk in part])

    class Upload(BaseModel):
        rows: Annotated[int, to_function(lines)]

    async with serving_model(Upload) as port:
        assert (await post(port, part("rows", b"a\nb\n", "rows.csv"))).json() == {"rows": 2}
        assert (await post(port, part("rows", b"a\n"))).json() == {"rows": 1}


async def test_a_table_in_a_form_is_read_row_by_row() -> None:
    class Reading(BaseModel):
        celsius: float

    async def hottest(part: Part) -> float:
        return max([reading.celsius async for reading in part.items(Reading)])

    class Upload(BaseModel):
        table: Annotated[float, to_function(hottest)]

    def table(text: bytes, kind: str = "text/csv") -> bytes:
        return part("table", text, "t.csv", f"Content-Type: {kind}")

    async with serving_model(Upload) as port:
        assert (await post(port, table(b"celsius\n1.5\n22\n3\n"))).json() == {"table": 22.0}
        wrong = await post(port, table(b"celsius\n1.5\nwarm\n"))
        assert (wrong.status, wrong.json()["record"], wrong.json()["offset"]) == (422, 2, 12)
        assert (await post(port, table(b"celsius\n", "image/png"))).status == 415


async def test_a_folder_that_is_sent_as_a_whole_keeps_its_folders(tmp_path: Path) -> None:
    class Upload(BaseModel):
        files: list[Annotated[UploadedFile, to_folder(tmp_path / "in", name=lambda part: part.path)]]

    async with serving_model(Upload) as port:
        names = ("photos/a", "photos/2026/a", "../b", "/c")
        assert (await post(port, *(part("files", b"1", name) for name in names))).status == 200
    found = [path.relative_to(tmp_path / "in").as_posix() for path in (tmp_path / "in").rglob("*") if path.is_file()]
    assert sorted(found) == ["b", "c", "photos/2026/a", "photos/a"]


async def test_a_name_that_leads_out_of_the_folder_is_the_programs_error(tmp_path: Path) -> None:
    class Upload(BaseModel):
        file: Annotated[UploadedFile, to_folder(tmp_path / "in", name=lambda part: "../" + part.filename)]

    async def handle(form: Form[Upload]) -> str:
        with pytest.raises(ValueError, match="within the folder"):
            await form.read()
        return "told"

    async with serving_model(Upload, handle) as port:
        assert (await post(port, part("file", b"1", "x"))).json() == "told"


@pytest.mark.parametrize(
    ("options", "limits"),
    [({"max_size": 999}, {}), ({}, {"max_file_size": 999}), ({"max_size": 999}, {"max_file_size": 10_000})],
)
async def test_a_file_that_is_too_large(tmp_path: Path, options: dict[str, Any], limits: dict[str, Any]) -> None:
    class Upload(BaseModel):
        file: Annotated[UploadedFile, to_folder(tmp_path, **options)]

    async with serving_model(Upload, **limits) as port:
        refused(await post(port, part("file", b"x" * 1000, "x")), 413, "too-large")
        assert (await post(port, part("file", b"x" * 999, "x"))).status == 200
    assert len(names_in(tmp_path)) == 1


async def test_a_file_without_a_name_but_with_content(tmp_path: Path) -> None:
    class Upload(BaseModel):
        file: Annotated[UploadedFile, to_folder(tmp_path)] | None = None

    async with serving_model(Upload) as port:
        assert "has no name" in refused(await post(port, part("file", b"x", "")), 400, "bad-request")


# -- all or nothing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "end", "status"),
    [
        pytest.param(b"", b"", 400, id="no end"),
        pytest.param(part("title", b"long" * 10), END, 400, id="an invalid field"),
        pytest.param(part("other", b"x"), END, 400, id="a missing field"),
        pytest.param(part("title", b"") + part("file", b"again", "x"), END, 400, id="a repeated file"),
        pytest.param(part("title", b"") + part("file", b"x" * 3000, "x"), b"", 400, id="a cut file"),
        pytest.param(b"--bound-ary\r\nbroken\r\n\r\n", END, 400, id="a broken part"),
        pytest.param(part("title", b"no"), END, 400, id="what the model refuses"),
    ],
)
async def test_nothing_is_left_of_a_form_that_is_wrong(tmp_path: Path, last: bytes, end: bytes, status: int) -> None:
    undone = []

    async def undo(value: int) -> None:
        undone.append(value)

    async def measured(part: Part) -> int:
        return len(await part.read())

    async with Streams(tmp_path / "data") as streams:

        class Upload(BaseModel):
            file: Annotated[UploadedFile, to_folder(tmp_path / "in")]
            stream: Annotated[StreamInfo, to_stream(streams, name=lambda part: "s")]
            size: Annotated[int, to_function(measured, undo=undo)]
            title: str = Field(max_length=10)

            @model_validator(mode="after")
            def _check(self, _info: ValidationInfo) -> "Upload":
                assert self.file.size == 1000
                assert self.stream.tail == 4
                assert self.title != "no"
                return self

        async with serving_model(Upload) as port:
            files = [part("file", b"x" * 1000, "x"), part("stream", b"1234", "s"), part("size", b"12", "n")]
            answer = await post(port, *files, last, end=end)
            assert answer.status == status, answer.body
            assert names_in(tmp_path / "in") == []
            assert (await streams.list()).streams == ()
            assert undone == ([] if not last else [2])  # without an end, the last part is not whole either
            with pytest.raises(StreamNotFound):
                await streams.info("s")
            assert (await post(port, *files, part("title", b"yes"))).status == 200
            assert len(names_in(tmp_path / "in")) == 1
            assert (await streams.info("s")).complete


async def test_files_are_shown_at_the_forms_end(tmp_path: Path) -> None:
    class Upload(BaseModel):
        file: Annotated[UploadedFile, to_folder(tmp_path, name=lambda part: part.filename)]
        title: str

    async def arrived() -> bool:
        return [(tmp_path / name).stat().st_size for name in names_in(tmp_path)] == [100_000]

    async with serving_model(Upload) as port, Connection(port) as connection:
        await connection.begin("POST", "/", {"content-type": TYPE, "transfer-encoding": "chunked"})
        await connection.write_chunk(part("file", b"x" * 100_000, "a") + part("title", b"")[:-2])
        await until(arrived, expected=True)
        assert names_in(tmp_path) != ["a"]
        await connection.write_chunk(b"\r\n" + END)
        await connection.write_chunk(b"")
        assert (await connection.answer()).status == 200
    assert names_in(tmp_path) == ["a"]


async def test_a_client_that_goes_leaves_nothing(tmp_path: Path) -> None:
    class Upload(BaseModel):
        file: Annotated[UploadedFile, to_folder(tmp_path)]
        other: Annotated[UploadedFile, to_folder(tmp_path)]

    async def files() -> int:
        return len(names_in(tmp_path))

    async with serving_model(Upload) as port:
        async with Connection(port) as connection:
            await connection.begin("POST", "/", {"content-type": TYPE, "content-length": "1000000"})
            await connection.write(part("file", b"x" * 1000, "a") + part("other", b"y" * 1000, "b")[:-2])
            await until(files, 2)
        await until(files, 0)


async def test_what_a_form_brought_goes_if_the_block_fails(tmp_path: Path) -> None:
    class Upload(BaseModel):
        file: Annotated[UploadedFile, to_folder(tmp_path)]
        good: bool

    async def handle(form: Form[Upload]) -> str:
        async with form as upload:
            assert names_in(tmp_path)
            if not upload.good:
                raise HTTPException(418)
        return "kept"

    async with serving_model(Upload, handle) as port:
        assert (await post(port, part("file", b"x", "a"), part("good", b"no"))).status == 418
        assert names_in(tmp_path) == []
        assert (await post(port, part("file", b"x", "a"), part("good", b"yes"))).json() == "kept"
        assert len(names_in(tmp_path)) == 1


# -- the order of things ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/?number=x", "/?number=1"])
async def test_the_form_is_read_when_everything_else_is_known_to_be_right(path: str) -> None:
    read = []

    class Upload(BaseModel):
        file: Annotated[int, to_function(lambda part: part.read())]

    def authorized(token: Annotated[str, Header()]) -> None:
        pass

    app = FastAPI()
    install_problem_handlers(app)
    dependency = form_model(Upload)

    @app.post("/", openapi_extra=dependency.docs)
    async def upload(
        number: int, form: Annotated[Form[Upload], Depends(dependency)], user: Annotated[None, Depends(authorized)]
    ) -> None:
        read.append(number)

    async with serving(app) as port, Connection(port) as connection:
        headers = {"content-type": TYPE, "content-length": "1000000000"}
        await connection.begin("POST", path, headers | ({} if path.endswith("1") else {"token": "x"}))
        refused(await connection.answer(), 400, "bad-request")
    assert read == []


def test_openapi_shows_the_form(tmp_path: Path) -> None:
    class Kind(Enum):
        A = "a"

    class Upload(BaseModel):
        """What is sent."""

        title: str = Field(description="Of the file")
        kind: Kind
        file: Annotated[UploadedFile, to_folder(tmp_path)] = Field(description="The file")
        rows: Annotated[Sequence[int], to_function(lambda part: part.read())] = ()
        files: list[Annotated[UploadedFile, to_folder(tmp_path)]] = []
        more: Annotated[list[UploadedFile], to_folder(tmp_path)] = []
        maybe: Annotated[UploadedFile, to_folder(tmp_path)] | None = None

    async def handle(form: Form[Upload]) -> None: ...

    document = application(Upload, handle).openapi()
    validate(document)
    body = document["paths"]["/"]["post"]["requestBody"]
    assert body["required"]
    schema = body["content"]["multipart/form-data"]["schema"]
    assert schema["required"] == ["title", "kind", "file"]
    fields = schema["properties"]
    binary = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    assert fields["title"] == {"type": "string", "title": "Title", "description": "Of the file"}
    assert fields["kind"]["enum"] == ["a"]
    assert fields["file"] == {**binary, "title": "File", "description": "The file"}
    assert fields["files"]["items"] == binary
    assert fields["more"]["items"] == binary
    assert fields["maybe"]["anyOf"] == [binary, {"type": "null"}]
