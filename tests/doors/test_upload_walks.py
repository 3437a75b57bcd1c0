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
    """

    url: str
    length: int | None
    data: bytes = b""
    complete: bool = False
    metadata: str | None = None
    part: bool = False
    parts: list[Model] = field(default_factory=list)
    gone: bool = False

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
        if any(part.gone for part in parts):
            assert created.status_code in GONE
            return multiple()
        if not all(part.part for part in parts):
            assert created.status_code == 400
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
        model = Model(urljoin("/files/", created.headers["location"]), length, data)
        self._models.append(model)
        return model

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
