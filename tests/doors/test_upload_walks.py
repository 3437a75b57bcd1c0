"""Arbitrary orders of requests to uploads that resume, of both protocols, on every store, compared with a model."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from penstock import Streams

EXAMPLES = int(os.environ.get("PENSTOCK_WALKS", "15"))
MAX_SIZE = 200_000
TUS = {"tus-resumable": "1.0.0"}
DRAFT = {"upload-draft-interop-version": "8"}

SIZES = st.sampled_from([0, 1, 3, 10, 70_000])
GONE = {404, 410}
VERSIONS = st.sampled_from([3, 4, 5, 6, 7, 8, None])


@dataclass(eq=False)
class Model:
    """What an upload must be.

    Attributes:
        url: where it is.
        length: what was declared, or None.
        data: the bytes that were taken.
        complete: whether it has ended.
        metadata: the field of the creation, exactly.
        part: whether it is a part.
        parts: what it is made of, for a final upload.
        gone: whether it was deleted.
        draft: whether it is an upload by the IETF's protocol, whose requests no other one answers.
    """

    url: str
    length: int | None
    data: bytes = b""
    complete: bool = False
    metadata: str | None = None
    part: bool = False
    parts: list[Model] = field(default_factory=list)
    gone: bool = False
    draft: bool = False

    @property
    def final(self) -> bool:
        return bool(self.parts)

    def grown(self) -> None:
        """Take in that bytes came, or a length."""
        self.complete = self.complete or len(self.data) == self.length

    def joined(self) -> None:
        """Take in that parts may be complete now. One that is gone too early leaves it unfinished for ever."""
        if not self.complete and all(part.complete and not part.gone for part in self.parts):
            self.data = b"".join(part.data for part in self.parts)
            self.complete = True


def _of_version(version: int | None, last: bool | None) -> dict[str, str]:
    """Return the fields of a request of the IETF's protocol."""
    fields = {} if version is None else {"upload-draft-interop-version": str(version)}
    if last is not None and version == 3:
        fields["upload-incomplete"] = "?0" if last else "?1"
    elif last is not None:
        fields["upload-complete"] = "?1" if last else "?0"
    return fields


def _complete(version: int | None, answer: httpx.Response) -> bool:
    """What an answer says of completeness."""
    if version == 3:
        return answer.headers["upload-incomplete"] == "?0"
    return bool(answer.headers["upload-complete"] == "?1")


class Walk(RuleBasedStateMachine):
    """Requests, one after another, to a server in this process."""

    where: Any = ":memory:"

    uploads = Bundle("uploads")

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._models: list[Model] = []
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-walk-"))
        self._seed = 0
        self._start()

    def _start(self) -> None:
        self._streams = Streams(self._folder / "data" if self.where is None else self.where, durability="os")
        app = FastAPI()
        app.include_router(self._streams.files(max_size=MAX_SIZE))
        self._runner.run(self._streams.start())
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://walk")

    def _stop(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.run(self._streams.stop())

    def teardown(self) -> None:
        self._stop()
        self._runner.close()
        shutil.rmtree(self._folder)

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> httpx.Response:
        return self._runner.run(self._client.request(method, url, headers=dict(headers), content=body))

    def _bytes(self, size: int) -> bytes:
        """Bytes that are never the same."""
        self._seed += 1
        return hashlib.shake_128(self._seed.to_bytes(8, "big")).digest(size)

    # -- tus ----------------------------------------------------------------------------------------------------------

    @rule(
        target=uploads,
        length=st.one_of(st.none(), SIZES, st.just(MAX_SIZE + 1)),
        first=st.one_of(st.none(), SIZES),
        metadata=st.sampled_from([None, "", "filename YS50eHQ=,x", "a YQ"]),
        part=st.booleans(),
    )
    def create(self, length: int | None, first: int | None, metadata: str | None, part: bool) -> Any:
        fields = {**TUS, **({"upload-defer-length": "1"} if length is None else {"upload-length": str(length)})}
        fields |= {} if metadata is None else {"upload-metadata": metadata}
        fields |= {"upload-concat": "partial"} if part else {}
        fields |= {"content-type": "application/offset+octet-stream"} if first else {}
        data = self._bytes(first or 0)
        created = self._ask("POST", "/files/", fields, data)
        if length is not None and (length > MAX_SIZE or len(data) > length):
            assert created.status_code == 413
            # Where it was the bytes that were too many, there is an upload, of which nobody heard.
            return multiple()
        assert created.status_code == 201
        url = urljoin("/files/", created.headers["location"])
        model = Model(url, length, data, metadata=metadata or None, part=part)
        model.grown()
        if first:
            assert created.headers["upload-offset"] == str(first)
        self._models.append(model)
        return model

    @rule(target=uploads, parts=st.lists(uploads, min_size=1, max_size=3))
    def create_final(self, parts: list[Model]) -> Any:
        fields = {**TUS, "upload-concat": f"final;{' '.join(part.url for part in parts)}"}
        known = [model for model in self._models if model.parts == parts and not model.gone]
        created = self._ask("POST", "/files/", fields)
        for part in parts:  # the first that is not as it must be tells
            if part.gone or not part.part:
                assert created.status_code in (GONE if part.gone else {400})
                return multiple()
        lengths = [len(part.data) if part.complete else part.length for part in parts]
        if None not in lengths and sum(filter(None, lengths)) > MAX_SIZE:
            assert created.status_code == 413
            return multiple()
        assert created.status_code == 201
        url = urljoin("/files/", created.headers["location"])
        if known:  # the same request is answered the same
            assert url in {model.url for model in known}
            return multiple()
        model = Model(url, None, parts=parts)
        model.joined()
        self._models.append(model)
        return model

    @rule(upload=uploads, wrong=st.sampled_from([0, 0, 0, 1, -1]), size=SIZES, length=st.one_of(st.none(), SIZES),
          checksum=st.sampled_from([None, None, True, False]))  # fmt: skip
    def patch(self, upload: Model, wrong: int, size: int, length: int | None, checksum: bool | None) -> None:
        offset, data = max(0, len(upload.data) + wrong), self._bytes(size)
        fields = {**TUS, "content-type": "application/offset+octet-stream", "upload-offset": str(offset)}
        fields |= {} if length is None else {"upload-length": str(length)}
        if checksum is not None:
            digest = base64.b64encode(hashlib.sha256(data if checksum else data + b"x").digest()).decode()
            fields["upload-checksum"] = f"sha256 {digest}"
        answer = self._ask("PATCH", upload.url, fields, data)
        expected = self._patched(upload, offset, data, length, checksum)
        assert answer.status_code in expected, (answer.status_code, answer.text, expected)
        if answer.status_code == 204:
            assert answer.headers["upload-offset"] == str(len(upload.data))

    def _patched(self, upload: Model, offset: int, data: bytes, length: int | None, checksum: bool | None) -> set[int]:
        """Return the statuses that may be, and change the model as the request must have."""
        if upload.gone:
            return GONE
        if upload.final:
            return {403}
        if upload.complete:
            return {409} if offset != len(upload.data) or data else {204}
        if offset != len(upload.data):
            return {409}
        if length is not None and (upload.length not in {None, length} or length < offset):
            return {400}
        upload.length = upload.length if length is None else length  # it holds, whatever becomes of the bytes
        if offset + len(data) > (MAX_SIZE if upload.length is None else upload.length):
            return {413}
        if checksum is False:
            return {460}
        upload.data += data
        upload.grown()
        self._parts_changed()
        return {204}

    def _parts_changed(self) -> None:
        for model in self._models:
            if model.final and not model.gone:
                model.joined()

    @rule(upload=uploads)
    def head(self, upload: Model) -> None:
        answer = self._ask("HEAD", upload.url, TUS)
        if not upload.gone and not upload.complete and len(upload.data) == upload.length:
            upload.complete = True  # a length that was told by a request whose bytes were refused
            self._parts_changed()
        if upload.gone or (upload.final and not upload.complete and any(part.gone for part in upload.parts)):
            assert answer.status_code in GONE
            assert "upload-offset" not in answer.headers
            return
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers.get("upload-metadata") == upload.metadata
        if upload.final:
            assert answer.headers["upload-concat"] == f"final;{' '.join(part.url for part in upload.parts)}"
        else:
            assert answer.headers.get("upload-concat") == ("partial" if upload.part else None)
            length = len(upload.data) if upload.complete else upload.length
            assert answer.headers.get("upload-length") == (None if length is None else str(length))
            assert answer.headers.get("upload-defer-length") == ("1" if length is None else None)
        offset = answer.headers.get("upload-offset")
        assert offset == (None if upload.final and not upload.complete else str(len(upload.data)))

    @rule(upload=uploads)
    def read(self, upload: Model) -> None:
        answer = self._ask("GET", upload.url.partition("?")[0], {})
        if upload.gone or upload.part:
            assert answer.status_code == 404
            return
        assert (answer.status_code, answer.content) == (200, upload.data)
        assert answer.headers["stream-state"] == ("closed" if upload.complete else "open")

    @rule(upload=consumes(uploads))
    def delete(self, upload: Model) -> None:
        answer = self._ask("DELETE", upload.url, TUS)
        assert answer.status_code in (GONE if upload.gone else {204})
        upload.gone = True

    # -- the IETF's protocol, on the same uploads ---------------------------------------------------------------------

    @rule(target=uploads, length=st.one_of(st.none(), SIZES), first=SIZES, last=st.booleans())
    def create_draft(self, length: int | None, first: int, last: bool) -> Any:
        fields = {**DRAFT, "upload-complete": "?1" if last else "?0"}
        fields |= {} if length is None else {"upload-length": str(length)}
        data = self._bytes(first)
        fits = length is None or (first == length if last else first <= length)
        created = self._ask("POST", "/files/", fields, data)
        if not fits:
            assert 400 <= created.status_code < 500
            return multiple()
        assert created.status_code == 201
        if last:
            return multiple()
        model = Model(urljoin("/files/", created.headers["location"]), length, data, draft=True)
        self._models.append(model)
        return model

    @rule(upload=uploads, version=VERSIONS, wrong=st.sampled_from([0, 0, 0, 1, -1]), size=SIZES, last=st.booleans(),
          length=st.one_of(st.none(), SIZES), digest=st.sampled_from([None, None, True, False]))  # fmt: skip
    def append_draft(
        self,
        upload: Model,
        version: int | None,
        wrong: int,
        size: int,
        last: bool,
        length: int | None,
        digest: bool | None,
    ) -> None:
        offset, data = max(0, len(upload.data) + wrong), self._bytes(size)
        fields = {**_of_version(version, last), "content-type": "application/partial-upload"}
        fields |= {"upload-offset": str(offset)} | ({} if length is None else {"upload-length": str(length)})
        if digest is not None:
            given = base64.b64encode(hashlib.sha256(data if digest else data + b"x").digest()).decode()
            fields["content-digest"] = f"sha-256=:{given}:"
        answer = self._ask("PATCH", upload.url, fields, data)
        before = upload.complete
        status, complete = self._appended(upload, version, offset, data, length, last, digest)
        assert answer.status_code == status, (answer.status_code, answer.text, status)
        assert _complete(version, answer) is complete
        if status == 409 or (200 <= status < 300):
            assert answer.headers["upload-offset"] == str(len(upload.data))
        if complete and not before and upload.complete:
            assert answer.json()["tail"] == len(upload.data)

    def _appended(
        self,
        upload: Model,
        version: int | None,
        offset: int,
        data: bytes,
        length: int | None,
        last: bool,
        digest: bool | None,
    ) -> tuple[int, bool]:
        """Return the status and the completeness that must be told, and change the model as the request must have."""
        early = version is not None and version <= 6
        if "upload=" not in upload.url:
            return 400, False  # it would create something, but for the offset
        if upload.gone or not upload.draft:
            return 404, False
        if offset != len(upload.data):
            return 409, False
        if upload.complete:
            return (201, True) if last and not data and version != 7 else (400, False)
        end = offset + len(data)
        told = {number for number in (upload.length, length, end if last else None) if number is not None}
        if len(told) > 1 or any(number < end for number in told):
            return 400, False
        known = told.pop() if told else None
        if (end if known is None else known) > MAX_SIZE:
            return 413, False
        whole = offset == 0 and last
        if digest is False and not whole:
            upload.length = known  # which was told by then
            return 400, False
        if digest is False:  # the digest of the whole is wrong: that is the end of it
            upload.gone = True
            return 400, True
        upload.length, upload.data = known, upload.data + data
        upload.complete = last or (early and end == known)
        return (201, True) if upload.complete else (201 if early else 204, False)

    @rule(upload=uploads, version=VERSIONS, method=st.sampled_from(["HEAD", "GET"]))
    def look_draft(self, upload: Model, version: int | None, method: str) -> None:
        if method == "GET" and not upload.draft and "upload=" not in upload.url:
            return  # which reads it
        answer = self._ask(method, upload.url, _of_version(version, None))
        if upload.gone or not upload.draft:
            assert answer.status_code in ({404} if "upload=" in upload.url else {200, 404, 410})
            return
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["upload-offset"] == str(len(upload.data))
        assert _complete(version, answer) is upload.complete
        length = len(upload.data) if upload.complete else upload.length
        assert answer.headers.get("upload-length") == (None if length is None else str(length))

    @rule(upload=uploads)
    def cancel_draft(self, upload: Model) -> None:
        if not upload.draft:
            return
        answer = self._ask("DELETE", upload.url, DRAFT)
        assert answer.status_code == (404 if upload.gone else 204)
        upload.gone = upload.gone or not upload.complete  # of one that is complete, only the URL goes
        upload.draft = False

    # -- the server ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.where is None)
    @rule()
    def restart(self) -> None:
        self._stop()
        self._start()


class LocalWalk(Walk):
    where = None


@pytest.mark.parametrize("machine", [Walk, LocalWalk], ids=["memory", "local"])
@pytest.mark.timeout(120 + 15 * EXAMPLES)
def test_any_order_of_requests_does_what_the_protocol_says(machine: type[Walk]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
