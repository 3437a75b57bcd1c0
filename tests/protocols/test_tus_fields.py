from __future__ import annotations

import base64
import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.protocols import tus
from penstock.protocols.tus import Checksum, Concatenation, TusError, UnsupportedChecksum

SIZES = {"sha1": 20, "md5": 16}


@pytest.mark.parametrize(("value", "size"), [("0", 0), ("70", 70), (" 5 ", 5), ("9" * 18, 10**18 - 1), ("007", 7)])
def test_a_size_is_digits(value: str, size: int) -> None:
    assert tus.parse_size("Upload-Offset", value) == size


@pytest.mark.parametrize("value", ["", "-1", "+1", "1.0", "0x1", "1 2", "1,2", "٣", "9" * 19, "1e3", "1_000"])
def test_what_is_not_a_size_is_refused_by_its_field(value: str) -> None:
    with pytest.raises(TusError, match="Upload-Length"):
        tus.parse_size("Upload-Length", value)


def test_a_deferred_length_is_said_by_one() -> None:
    tus.parse_defer_length("1")
    for value in ("0", "2", "true", "", "01"):
        with pytest.raises(TusError):
            tus.parse_defer_length(value)


def test_metadata_of_the_specification() -> None:
    value = "filename d29ybGRfZG9taW5hdGlvbl9wbGFuLnBkZg==,is_confidential"
    assert tus.parse_metadata(value) == {"filename": b"world_domination_plan.pdf", "is_confidential": b""}


@pytest.mark.parametrize(
    ("value", "pairs"),
    [
        ("", {}),
        ("  ", {}),
        ("a", {"a": b""}),
        ("a ", {"a": b""}),
        ("a YQ==, b", {"a": b"a", "b": b""}),
        ("a YQ", {"a": b"a"}),
        ("a  YQ==", {"a": b"a"}),
        ("naïve YQ==", {"naïve": b"a"}),
    ],
)
def test_metadata_as_clients_write_it(value: str, pairs: dict[str, bytes]) -> None:
    assert tus.parse_metadata(value) == pairs


@pytest.mark.parametrize("value", [",", "a YQ==,", ",a YQ==", "a YQ==,a", "a !!!", "a YQ== YQ==", "a Y", "a =="])
def test_metadata_that_cannot_be_read(value: str) -> None:
    with pytest.raises(TusError, match="Upload-Metadata"):
        tus.parse_metadata(value)


@given(st.dictionaries(st.from_regex(r"[!-+\--~]+", fullmatch=True), st.binary()))
def test_metadata_round_trips(pairs: dict[str, bytes]) -> None:
    value = ",".join(f"{key} {base64.b64encode(data).decode()}" for key, data in pairs.items())
    assert tus.parse_metadata(value) == pairs


@given(st.text())
def test_any_text_is_read_or_refused(value: str) -> None:
    for parse in (tus.parse_metadata, tus.parse_concat, lambda text: tus.parse_checksum(text, SIZES)):
        with contextlib.suppress(TusError):
            parse(value)


def test_metadata_that_is_text() -> None:
    assert tus.texts({"a": "ä".encode(), "b": b"\xff", "c": b""}) == {"a": "ä", "c": ""}


def test_concatenation() -> None:
    assert tus.parse_concat("partial") == Concatenation()
    assert not tus.parse_concat("partial").final
    final = tus.parse_concat("final;/files/a https://host/files/b  /files/a")
    assert final.final
    assert final.parts == ("/files/a", "https://host/files/b", "/files/a")


@pytest.mark.parametrize("value", ["", "final", "final;", "final; ", "Partial", "partial;/files/a", "first;/a"])
def test_what_is_no_concatenation(value: str) -> None:
    with pytest.raises(TusError, match="Upload-Concat"):
        tus.parse_concat(value)


def test_a_checksum() -> None:
    digest = hashlib.sha1(b"hello world", usedforsecurity=False).digest()
    assert tus.parse_checksum("sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=", SIZES) == Checksum("sha1", digest)


@pytest.mark.parametrize("value", ["", "sha1", "sha1 !", "sha1 YQ==", "SHA1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=", "ä YQ=="])
def test_a_checksum_that_cannot_be_read(value: str) -> None:
    with pytest.raises(TusError):
        tus.parse_checksum(value, SIZES)


def test_a_checksum_of_another_algorithm() -> None:
    with pytest.raises(UnsupportedChecksum, match="sha1, md5"):
        tus.parse_checksum("crc64 AAAAAAAAAAA=", SIZES)


def test_the_extensions() -> None:
    assert tus.extensions() == (
        "creation,creation-with-upload,creation-defer-length,expiration,checksum,"
        "termination,concatenation,concatenation-unfinished"
    )
    assert "checksum,checksum-trailer," in tus.extensions(trailers=True)
