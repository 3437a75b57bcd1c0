"""What the OpenAPI document says of bodies: all of it, without a word of the application's, and valid."""

# Without the future import: FastAPI must see the annotations of functions within functions.

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import pytest
from fastapi import APIRouter, Depends, FastAPI
from openapi_spec_validator import validate
from pydantic import BaseModel

from applications import serving
from penstock.toolkit.problems import ProblemRoute, install_problem_handlers
from penstock.toolkit.requests.dependency import StreamBody, body_docs, stream_body
from penstock.toolkit.requests.form_fields import to_folder, to_function
from penstock.toolkit.requests.form_models import Form, form_model
from penstock.toolkit.requests.forms import Part, StreamForm, UploadedFile, stream_form
from penstock.toolkit.responses.draining import draining
from wire import request

BINARY = {"type": "string", "format": "binary"}


class Reading(BaseModel):
    sensor: str
    celsius: float


@dataclass
class Row:
    sensor: str


class Struct(msgspec.Struct):
    inner: list[Row]


async def counted(part: Part) -> int:
    return len(await part.read())


class Upload(BaseModel):
    title: str
    tags: list[str] = []
    file: Annotated[UploadedFile, to_folder("/nowhere")]
    more: list[Annotated[int, to_function(counted)]] = []


picture = stream_body(content=["image/png", "image/jpeg"], max_size=None, max_ratio=None, idle=None, min_rate=None)
readings = stream_body(content={"application/x-ndjson": Reading, "application/json": Row, "text/csv": Struct})
upload_form = form_model(Upload)


async def renamed(body: Annotated[StreamBody, Depends(stream_body())]) -> StreamBody:
    return body


def router(**options: Any) -> APIRouter:
    router = APIRouter(**options)

    @router.put("/raw/{name}")
    async def raw(name: str, body: Annotated[StreamBody, Depends(renamed)]) -> None: ...

    @router.put("/picture")
    async def put_picture(body: Annotated[StreamBody, Depends(picture)]) -> None: ...

    @router.post("/readings")
    async def post_readings(body: Annotated[StreamBody, Depends(readings)]) -> None: ...

    @router.post("/parts")
    async def post_parts(form: Annotated[StreamForm, Depends(stream_form())]) -> None: ...

    @router.post("/upload")
    async def post_upload(form: Annotated[Form[Upload], Depends(upload_form)]) -> None: ...

    @router.post(
        "/own", openapi_extra=body_docs(["text/x-own"]), responses={413: {"description": "Mine"}}, status_code=202
    )
    async def own(body: Annotated[StreamBody, Depends(stream_body())]) -> None: ...

    @router.get("/plain")
    async def plain(number: int = 0) -> int:
        return number

    return router


def with_handlers() -> FastAPI:
    app = FastAPI()
    install_problem_handlers(app)
    app.include_router(router())  # after them, as everything usually is
    return app


def with_routes() -> FastAPI:
    app = FastAPI()
    app.include_router(router(route_class=ProblemRoute))
    return app


def operations(app: FastAPI, prefix: str = "") -> dict[str, Any]:
    document = app.openapi()
    validate(document)
    assert app.openapi() == document  # asking again changes nothing
    return {path.removeprefix(prefix): told for path, item in document["paths"].items() for told in item.values()}


def schemas(operation: dict[str, Any]) -> dict[str, Any]:
    return {kind: content["schema"] for kind, content in operation["requestBody"]["content"].items()}


@pytest.mark.parametrize("build", [with_handlers, with_routes])
def test_every_kind_of_body_is_shown(build: Any) -> None:
    told = operations(build())
    assert schemas(told["/raw/{name}"]) == {"*/*": BINARY}
    assert schemas(told["/picture"]) == {"image/png": BINARY, "image/jpeg": BINARY}
    items = schemas(told["/readings"])
    assert items["application/x-ndjson"]["contentSchema"]["required"] == ["sensor", "celsius"]
    assert items["application/json"]["items"]["properties"]["sensor"]["type"] == "string"
    assert items["text/csv"]["contentSchema"]["properties"]["inner"]["items"]["title"] == "Row"
    assert schemas(told["/parts"])["multipart/form-data"]["type"] == "object"
    form = schemas(told["/upload"])["multipart/form-data"]
    assert sorted(form["required"]) == ["file", "title"]
    assert form["properties"]["title"]["type"] == "string"
    assert form["properties"]["tags"]["items"]["type"] == "string"
    assert form["properties"]["file"]["format"] == "binary"
    assert form["properties"]["more"]["type"] == "array"
    assert form["properties"]["more"]["items"]["format"] == "binary"
    for path in ("/raw/{name}", "/readings", "/parts", "/upload"):
        assert told[path]["requestBody"]["required"] is True
    assert "requestBody" not in told["/plain"]


@pytest.mark.parametrize("build", [with_handlers, with_routes])
def test_so_is_what_can_be_refused_and_what_the_application_says_itself_stays(build: Any) -> None:
    told = operations(build())

    def problems(path: str) -> set[str]:
        responses = told[path]["responses"].items()
        found = {status for status, response in responses if "application/problem+json" in response.get("content", {})}
        return found - {"default"}

    assert problems("/picture") == {"400", "415", "507"}  # of which no limit was set
    assert problems("/readings") == {"400", "408", "413", "415", "422"}
    assert problems("/parts") == problems("/upload") == {"400", "408", "413", "415", "507"}
    assert schemas(told["/own"]) == {"text/x-own": BINARY}
    assert told["/own"]["responses"]["413"] == {"description": "Mine"}
    assert "202" in told["/own"]["responses"]


def test_where_parameters_that_are_not_valid_are_problems_they_are_no_422() -> None:
    assert set(operations(with_handlers())["/plain"]["responses"]) == {"200", "400"}
    assert set(operations(with_routes())["/plain"]["responses"]) == {"200", "default"}
    stock = FastAPI()
    stock.include_router(router())
    assert set(operations(stock)["/plain"]["responses"]) == {"200", "422"}


async def test_our_lifespans_show_bodies_in_an_application_whose_errors_are_fastapi_s() -> None:
    app = FastAPI(lifespan=draining)
    app.include_router(router(prefix="/in"))
    async with serving(app) as port:
        document = (await request(port, "GET", "/openapi.json")).json()
        refused = await request(port, "PUT", "/in/picture", b"x", {"content-encoding": "exi"})
    told = operations(app, "/in")
    assert document["paths"]["/in/picture"]["put"]["requestBody"] == told["/picture"]["requestBody"]
    assert refused.status == 415
    schema = told["/picture"]["responses"]["415"]["content"][refused.headers["content-type"]]["schema"]
    assert set(refused.json()) == set(schema["properties"])
