"""Forms described by a pydantic model, whose files go straight to where they are to be.

::

    class Upload(BaseModel):
        title: str
        tags: list[str] = []
        file: Annotated[UploadedFile, to_folder("/srv/in")]
        pictures: list[Annotated[StreamInfo, to_stream(streams, prefix="pictures/")]] = []

    upload_form = form_model(Upload, max_file_size=5 * GiB)

    @app.post("/upload")
    async def upload(user: CurrentUser, form: Annotated[Form[Upload], Depends(upload_form)]):
        upload = await form.read()

The form is all or nothing. Files and streams are shown once the whole form has arrived and the model has accepted it;
until then they are kept aside, and they go if anything is wrong.
"""

# Without the future import: FastAPI reads these annotations off an object, not a function, and needs them as they are.

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from types import TracebackType, UnionType
from typing import Annotated, Any, Generic, TypeVar, Union, Unpack, get_args, get_origin

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Json, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from starlette.requests import Request

from penstock.core.uninterrupted import uninterrupted
from penstock.toolkit.problems import answered, bad_request
from penstock.toolkit.requests.form_fields import Destination, Held
from penstock.toolkit.requests.forms import FormLimits, FormOptions, Part, StreamForm, form_docs, form_refusals
from penstock.toolkit.requests.multipart import parser_package
from penstock.toolkit.requests.openapi import ReadsBody
from penstock.toolkit.requests.schemas import inlined

__all__ = ["Form", "FormModelDependency", "form_model"]

M = TypeVar("M", bound=BaseModel)


class Form(Generic[M]):
    """A form that is yet to be read; see `form_model`.

    `read` it; or keep what it brought only if a block succeeds, and after an exception remove its files and streams.

    ::

        async with form as upload:
            await database.insert(upload.title, upload.file.path)
    """

    def __init__(self, model: type[M], plan: "_Plan", form: StreamForm) -> None:
        self._model = model
        self._plan = plan
        self._form = form
        self._held: list[Held[Any]] = []
        self._previews: list[object] = []

    async def read(self) -> M:
        """Read the whole body, and return the model.

        Raises:
            RequestValidationError: a field is missing, unknown, repeated, or not what the model wants. It is raised as
                soon as it is known: an invalid field before a file stops the file.
            RequestError, ClientDisconnect: see `StreamForm`.
            StorageFull: the disk is full.
        """
        gathered = _Gathered(self._plan, self._held, self._previews)
        try:
            async for part in self._form:
                await gathered.take(part)
            result = self._validated(gathered.values)
            await self._publish(result)
        except BaseException:
            await self.discard()
            raise
        return result

    async def discard(self) -> None:
        """Remove the files and streams that the form brought, published or not."""
        held, self._held = self._held, []
        for one in reversed(held):
            await uninterrupted(one.discard())

    def _validated(self, values: dict[str, Any]) -> M:
        try:
            return self._model.model_validate(values)
        except ValidationError as error:
            raise _invalid(error) from None

    async def _publish(self, result: M) -> None:
        """Show what was held. What the model took was how each would be; now it gets how each is."""
        for held in self._held:
            await uninterrupted(held.publish())
        final = {id(before): held.value for held, before in zip(self._held, self._previews, strict=True)}
        for name in self._plan.kept:
            if name in result.__dict__:
                # Not by assignment: the model may be frozen, and has validated the field.
                result.__dict__[name] = _each(result.__dict__[name], lambda value: final.get(id(value), value))

    async def __aenter__(self) -> M:
        return await self.read()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            await self.discard()


class FormModelDependency(ReadsBody, Generic[M]):
    """What `form_model` returns: a dependency that yields a `Form`.

    Attributes:
        limits: what is accepted.
        docs: what the OpenAPI document says of the body; see `ReadsBody`.
        refusals: why what statuses may be answered on account of it.
    """

    def __init__(self, model: type[M], limits: FormLimits) -> None:
        parser_package()
        self.limits = limits
        self.docs: dict[str, Any] = form_docs(inlined(model.model_json_schema()))
        self.refusals = form_refusals(limits)
        self._model = model
        self._plan = _Plan(model)

    async def __call__(self, request: Request) -> AsyncGenerator[Form[M], None]:
        """Look at the request's head, and hand out its form. Nothing of the body is read."""
        with answered(request):
            async with aclosing(StreamForm(request, self.limits)) as form:
                yield Form(self._model, self._plan, form)


def form_model(model: type[M], **limits: Unpack[FormOptions]) -> FormModelDependency[M]:
    """Return a dependency that gives a `Form` of a model.

    The dependency itself reads nothing. FastAPI goes on through the dependencies after one that found a parameter
    missing, and checks the path and the query last of all: so it is in the handler, with ``await form.read()``, that
    the body is read, when everything else is known to be right. What the request's head tells already is refused when
    the dependency is reached: put those that authorize before it. For how errors are answered, see `stream_body`.

    Fields of the model are parts of that name (or alias). One annotated with a destination (`to_folder`, `to_stream`,
    `to_function`) takes files; any other, text. Lists take several parts of the name. As in FastAPI's own forms, an
    empty text for a field with a default is as good as none, and so is a file input in which no file was chosen. What
    the model does not have is skipped, or refused where it forbids extra fields.

    Args:
        model: the form.
        limits: see `FormLimits`.
    """
    return FormModelDependency(model, FormLimits(**limits))


class _Field:
    """A field of the model, as the form has it."""

    def __init__(self, name: str, info: FieldInfo, *, checked: bool) -> None:
        alias = info.validation_alias
        self.key = alias if isinstance(alias, str) else info.alias or name
        self.name = name
        self.required = info.is_required()
        kind: Any = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
        self.destination = _destination(kind)
        self.many = _is_many(kind)
        self.adapter: TypeAdapter[Any] | None = None
        if checked and self.destination is None and not self.many:
            self.adapter = TypeAdapter(kind)

    def check(self, text: str) -> None:
        """Refuse what the model certainly will, before more of the body is read."""
        if self.adapter is not None:
            try:
                self.adapter.validate_python(text)
            except ValidationError as error:
                raise _invalid(error, self.key) from None


class _Plan:
    """What is to be done with the parts of a form, by the names of its fields."""

    def __init__(self, model: type[BaseModel]) -> None:
        # Validators of the model's own, and its settings, may make of a field what its type alone would not tell.
        decorators = model.__pydantic_decorators__
        checked = set(model.model_config) <= {"extra", "frozen", "title"} and not any(
            (
                decorators.field_validators,
                decorators.validators,
                decorators.model_validators,
                decorators.root_validators,
            )
        )
        fields = [_Field(name, info, checked=checked) for name, info in model.model_fields.items()]
        self.fields = {field.key: field for field in fields}
        self.kept = [field.name for field in fields if field.destination is not None]
        self.extra = model.model_config.get("extra", "ignore")


class _Gathered:
    """The values of a form that is being read."""

    def __init__(self, plan: _Plan, held: list[Held[Any]], previews: list[object]) -> None:
        self._plan = plan
        self._held = held
        self._previews = previews
        self.values: dict[str, Any] = {}

    async def take(self, part: Part) -> None:
        """Read a part."""
        field = self._plan.fields.get(part.name)
        if part.is_file and not part.filename:
            await part.skip()
            if part.size:
                raise bad_request(f"The file of the field {part.name[:80]!r} has no name.")
        elif field is None:
            await self._take_extra(part)
        elif not field.many and field.key in self.values:
            raise _wrong("repeated", field.key, "The field was sent more than once")
        elif field.destination is not None:
            part.max_size = field.destination.max_size or part.form.limits.max_file_size
            held = await field.destination.take(part)
            self._held.append(held)
            self._previews.append(held.value)
            self._add(field.key, self._previews[-1], many=field.many)
        elif (text := await part.text()) or field.required or field.many:
            field.check(text)
            self._add(field.key, text, many=field.many)

    async def _take_extra(self, part: Part) -> None:
        if self._plan.extra == "forbid":
            raise _wrong("extra_forbidden", part.name, "Extra inputs are not permitted")
        if self._plan.extra == "allow" and not part.is_file:
            self._add(part.name, await part.text(), many=False)

    def _add(self, key: str, value: object, *, many: bool) -> None:
        if many:
            self.values.setdefault(key, []).append(value)
        else:
            self.values[key] = value


def _each(value: Any, function: Callable[[Any], Any]) -> Any:
    return [function(item) for item in value] if isinstance(value, list) else function(value)


def _invalid(error: ValidationError, key: str | None = None) -> RequestValidationError:
    prefix = ("body",) if key is None else ("body", key)
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return RequestValidationError([{**one, "loc": (*prefix, *one["loc"])} for one in found])


def _wrong(kind: str, key: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"type": kind, "loc": ("body", key[:80]), "msg": message}])


def _destination(kind: Any) -> Destination[Any] | None:
    """Return the destination with which a type, or what it consists of, is annotated."""
    if get_origin(kind) is Annotated:
        for extra in kind.__metadata__:
            if isinstance(extra, Destination):
                return extra
    found = (_destination(inner) for inner in get_args(kind) if not isinstance(inner, Destination))
    return next((one for one in found if one is not None), None)


def _is_many(kind: Any) -> bool:
    """Tell whether a type is of several values: a list, perhaps annotated, perhaps optional."""
    origin = get_origin(kind) or kind
    if origin is Annotated:
        # A list in JSON is one text.
        return _is_many(get_args(kind)[0]) and not any(type(extra) is Json for extra in kind.__metadata__)
    if origin in {Union, UnionType}:
        return any(_is_many(inner) for inner in get_args(kind))
    return (
        isinstance(origin, type) and issubclass(origin, (list, set, frozenset, tuple, Sequence)) and origin is not str
    )
