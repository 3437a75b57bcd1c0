"""Plain HTML forms: each file of a form becomes a stream of its own while it arrives. No JavaScript is needed.

The files are complete when the form is, and then they are shown so, each in a commit of its own. Where one cannot be,
none is; but with ``?replace``, which cannot be undone, what is stored stays: see `PartlyStored`.
"""

from __future__ import annotations

import asyncio
import html
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from penstock.core.digests import Hasher
from penstock.core.service import StreamService
from penstock.core.uninterrupted import uninterrupted
from penstock.core.writer import Draft
from penstock.doors.fields import check_coding, described, media_type_of, spec_of
from penstock.doors.hooks import Hooks, NewUpload
from penstock.doors.uploads import Expect
from penstock.errors import PenstockError, PreconditionFailed, StreamGone, StreamIsOpen, StreamNotFound
from penstock.model import StreamInfo, check_name
from penstock.protocols.accept import preferred_type
from penstock.toolkit.problems import RequestError, bad_request
from penstock.toolkit.requests.forms import FormLimits, Part, StreamForm
from penstock.toolkit.requests.multipart import parser_package
from penstock.toolkit.responses.representations import joined, wanted_digest

MEDIA_TYPE: Final = "multipart/form-data"

_MAX_FILES: Final = 1000
"""So many that a folder can be sent as a whole."""

_MAX_FIELDS: Final = 64
_MAX_METADATA: Final = 32 * 1024
"""Bytes of all text fields of a form: they are kept with each of its files, and read with every look at one."""

_NUMBERED: Final = 9
"""Up to which number names that are taken get one; then they get a random text, so that nobody has to look on."""

_PATH: Final = re.compile(r"/(?![/\\])[!-\[\]-~]*")
"""A path on this server, and nothing that a browser would take for another server's address."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a form, as it was stored.

    Attributes:
        field: the name of the form's field that it came in.
        info: the stream.
        created: whether the name showed nothing before.
    """

    field: str
    info: StreamInfo
    created: bool


class PartlyStored(Exception):
    """Some files of a form with ``?replace`` are complete, and others could not be shown.

    What a file has replaced is gone, so that it cannot be brought back: what is stored stays. Of a form that replaces
    nothing, what is stored is removed instead, and the error raised as it is.

    Attributes:
        error: why the first one could not.
        stored: the files that are complete.
        missing: the others, by their fields and names.
    """

    def __init__(self, error: PenstockError, stored: list[StoredFile], missing: list[tuple[str, str]]) -> None:
        super().__init__(str(error))
        self.error = error
        self.stored = stored
        self.missing = missing

    def facts(self, url_of: Callable[[str], str]) -> dict[str, Any]:
        """Return what there is to tell about it beside the error."""
        return {
            "stored": _described(self.stored, url_of),
            "missing": [{"field": field, "name": name} for field, name in self.missing],
        }


def is_form(request: Request) -> bool:
    """Tell whether a request's body is a form with files."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == MEDIA_TYPE


async def receive(
    service: StreamService, request: Request, prefix: str, hooks: Hooks, expect: Expect
) -> list[StoredFile]:
    """Make each file of a form a stream, and each text field metadata of all of them; see the HTTP interface.

    Args:
        service: the streams.
        request: the form. With ``?replace``, a file takes the place of a stream of its name, as with a PUT; otherwise
            it gets another name.
        prefix: what the streams' names begin with; what follows are the files' names, with their folders.
        hooks: are asked for each file before anything of it is read.
        expect: is told of each file before it is complete.

    Raises:
        RequestError: the form is not as it must be, or too large.
        StreamIsOpen: a stream that is to be replaced is still being written.
        PartlyStored: see there.
    """
    check_coding(request)
    next_page(request)
    limits = FormLimits(
        max_file_size=hooks.max_size,
        max_files=_MAX_FILES,
        max_fields=_MAX_FIELDS,
        max_field_size=_MAX_METADATA,
        decode=False,
    )
    async with aclosing(_form(request, limits)) as form, AsyncExitStack() as drafts:
        intake = _Intake(service, request, prefix, hooks, drafts, expect)
        async for part in form:
            await intake.take(part)
        return await uninterrupted(intake.publish())


def answer(request: Request, stored: list[StoredFile], url_of: Callable[[str], str]) -> Response:
    """Tell what was stored: as JSON to programs; to browsers as a page, or by sending them on to ``?next=/path``."""
    status = 201 if any(file.created for file in stored) else 200
    urls = [url_of(file.info.name) for file in stored]
    headers = {"vary": "Accept", "cache-control": "no-store"}
    if len(stored) == 1:
        headers["location"] = urls[0]
    if preferred_type(joined(request, "accept"), ("application/json", "text/html")) == "text/html":
        target = next_page(request)
        if target is not None:
            return RedirectResponse(target, 303, headers={"vary": "Accept", "cache-control": "no-store"})
        return HTMLResponse(_page(stored, urls), status, {**headers, **_PAGE_FIELDS})
    return JSONResponse({"streams": _described(stored, url_of)}, status, headers)


def _described(stored: list[StoredFile], url_of: Callable[[str], str]) -> list[dict[str, Any]]:
    return [{"field": file.field, **described(file.info, url_of(file.info.name))} for file in stored]


def next_page(request: Request) -> str | None:
    """Return the path where browsers are to go on, or None.

    Raises:
        RequestError: it is none of this server: a link to a form must not send people just anywhere.
    """
    target = request.query_params.get("next")
    if target is not None and not _PATH.fullmatch(target):
        raise bad_request("'next' must be a path on this server, such as /thanks, percent-encoded.")
    return target


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the form, held back until the form is complete."""

    field: str
    draft: Draft
    hasher: Hasher
    created: bool
    known: Mapping[str, str]  # what the form had told when the file began

    async def publish(self, fields: _Fields) -> StoredFile:
        """Show it as complete, with the fields that came after it, but for those that the application saw to."""
        begun = self.draft.info.metadata
        later = {
            name: value
            for name, value in fields.metadata().items()
            if value != self.known.get(name) and begun.get(name) == self.known.get(name)
        }
        info = await self.draft.publish(self.hasher.digests(), metadata={**begun, **later})
        return StoredFile(self.field, info, self.created)


@dataclass(slots=True)
class _Fields:
    """The text fields of the form."""

    _values: dict[str, list[str]] = field(default_factory=dict)
    _size: int = 0

    def add(self, name: str, value: str) -> None:
        self._size += len(name.encode()) + len(value.encode())
        if self._size > _MAX_METADATA:
            raise RequestError(
                "too-large", 413, f"The form's fields have more than {_MAX_METADATA} bytes.", max_size=_MAX_METADATA
            )
        self._values.setdefault(name, []).append(value)

    def metadata(self) -> dict[str, str]:
        """Return the fields that have come so far. ``filename`` is not one of them: it is each file's own."""
        return {name: "\n".join(values) for name, values in self._values.items() if name != "filename"}


class _Intake:
    """What has come of a form.

    Args:
        service: the streams.
        request: the form's.
        prefix: what the streams' names begin with.
        hooks: the door's.
        drafts: ends what was begun and not published.
        expect: is told of each file before it is complete.
    """

    def __init__(
        self,
        service: StreamService,
        request: Request,
        prefix: str,
        hooks: Hooks,
        drafts: AsyncExitStack,
        expect: Expect,
    ) -> None:
        self._service = service
        self._request = request
        self._prefix = prefix
        self._hooks = hooks
        self._drafts = drafts
        self._expect = expect
        self._replacing = "replace" in request.query_params
        self._fields = _Fields()
        self._files: list[_File] = []

    async def take(self, part: Part) -> None:
        """Read a part to its end."""
        if not part.is_file:
            self._fields.add(part.name, await part.text())
        elif part.filename:
            file = await self._begun(part)
            self._files.append(file)
            await part.pump(file.draft.write, file.hasher)
        else:  # what browsers send of a file input in which no file was chosen
            await part.skip()
            if part.size:
                raise bad_request(f"The file of the field {part.name[:80]!r} has no name.")

    async def _begun(self, part: Part) -> _File:
        request, hooks = self._request, self._hooks
        name = check_name(self._prefix + part.path)
        await hooks.authorized(request, "write", name)
        known = self._fields.metadata()
        new = NewUpload(
            name=name,
            protocol="form",
            content_type=media_type_of(part.headers.get("content-type", ""), part.filename),
            metadata={**known, "filename": part.filename},
        )
        new = await hooks.begun(new, request)
        part.max_size = new.max_size
        draft = await self._draft(new)
        return _File(part.name, draft, Hasher(_wanted_digest(request)), draft.info.published, known)

    async def _draft(self, new: NewUpload) -> Draft:
        """Begin a stream under the first name that is to be had."""
        request = self._request
        spec = replace(
            spec_of(request, new.content_type, None, self._service.now), metadata=new.metadata, owner=new.owner
        )
        taken = {file.draft.info.name for file in self._files}
        for name in _names(new.name):
            if name in taken:
                continue
            if name != new.name:
                await self._hooks.authorized(request, "write", check_name(name))
            condition = None if self._replacing else _absent(name)
            try:
                return await self._drafts.enter_async_context(
                    await self._service.replace(name, spec, condition=condition)
                )
            except (PreconditionFailed, StreamIsOpen):
                if self._replacing:
                    raise
        raise AssertionError("there is always one more name")

    async def publish(self) -> list[StoredFile]:
        """Show all files as complete, each in a commit of its own; see `PartlyStored` for what becomes of a failure."""
        if not self._files:
            raise bad_request("The form has no file: it must have at least one with a name.")
        results = await asyncio.gather(*map(self._published, self._files), return_exceptions=True)
        stored = [result for result in results if isinstance(result, StoredFile)]
        failed = [
            (error, file) for error, file in zip(results, self._files, strict=True) if isinstance(error, BaseException)
        ]
        if not failed:
            return stored
        first = failed[0][0]
        if self._replacing:
            if stored and isinstance(first, PenstockError):
                raise PartlyStored(first, stored, [(file.field, file.draft.info.name) for _, file in failed])
            raise first
        for file in stored:
            with suppress(StreamNotFound, StreamGone):
                await self._service.delete(file.info.name, incarnation=file.info.incarnation)
        raise first

    async def _published(self, file: _File) -> StoredFile:
        await self._expect(file.draft.info.name, file.draft.info.incarnation, self._request)
        return await file.publish(self._fields)


def _form(request: Request, limits: FormLimits) -> StreamForm:
    try:
        parser_package()
    except RuntimeError:
        raise RequestError(
            "unsupported-media-type", 415, "This server takes no forms: send files one by one."
        ) from None
    return StreamForm(request, limits)


def _names(name: str) -> Iterator[str]:
    """Yield the names that a file may get, the nicest first."""
    folder, slash, filename = name.rpartition("/")
    stem, dot, suffix = filename.rpartition(".")
    if not stem:
        stem, dot, suffix = filename, "", ""
    yield name
    for number in range(2, _NUMBERED + 1):
        yield f"{folder}{slash}{stem}-{number}{dot}{suffix}"
    while True:
        yield f"{folder}{slash}{stem}-{secrets.token_hex(8)}{dot}{suffix}"


def _absent(name: str) -> Callable[[StreamInfo | None], None]:
    def check(shown: StreamInfo | None) -> None:
        if shown is not None:
            raise PreconditionFailed(name)

    return check


def _wanted_digest(request: Request) -> tuple[str, ...]:
    algorithm = wanted_digest(request)
    return () if algorithm is None else (algorithm,)


# -- the page ---------------------------------------------------------------------------------------------------------

_PAGE_FIELDS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "x-content-type-options": "nosniff",
}

_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Stored</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 48rem; padding: 0 1rem }}
td {{ padding: 0 2rem 0 0 }} td + td {{ text-align: right }}</style>
<h1>Stored</h1>
<table>
{rows}
</table>
</html>
"""

_ROW: Final = '<tr><td><a href="{url}">{name}</a></td><td>{size}</td></tr>'


def _page(stored: list[StoredFile], urls: list[str]) -> str:
    rows = (
        _ROW.format(url=html.escape(url), name=html.escape(file.info.name), size=f"{file.info.tail:,} bytes")
        for file, url in zip(stored, urls, strict=True)
    )
    return _PAGE.format(rows="\n".join(rows))
