"""The reader of multipart/form-data, without a server."""

from __future__ import annotations

import email.parser
import email.policy
import itertools
import tracemalloc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.toolkit.problems import RequestError
from penstock.toolkit.requests.multipart import MultipartReader, PartHead, boundary_of

B = "bound-ary"


@dataclass
class Received:
    head: PartHead
    data: bytes
    ended: bool = False


def received(chunks: Iterable[bytes], boundary: str = B) -> list[Received]:
    reader = MultipartReader(boundary)
    parts: list[Received] = []
    for chunk in chunks:
        for event in reader.feed(chunk):
            if isinstance(event, PartHead):
                assert all(part.ended for part in parts)
                parts.append(Received(event, b""))
            elif event is None:
                parts[-1].ended = True
            else:
                assert event
                assert not parts[-1].ended
                parts[-1].data += event
    reader.finish()
    assert all(part.ended for part in parts)
    return parts


def cut(body: bytes, places: Sequence[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:stop] for start, stop in itertools.pairwise(borders)]


def part(header: str, data: bytes = b"data") -> bytes:
    return b"--" + B.encode() + b"\r\n" + header.encode() + b"\r\n\r\n" + data + b"\r\n"


END = f"--{B}--\r\n".encode()
FIELD = part('Content-Disposition: form-data; name="a"')


def only(header: str, data: bytes = b"data") -> Received:
    (found,) = received([part(header, data) + END])
    assert found.data == data
    return found


def refusal(body: Iterable[bytes] | bytes, boundary: str = B) -> RequestError:
    with pytest.raises(RequestError) as caught:
        received([body] if isinstance(body, bytes) else body, boundary)
    return caught.value


# -- where the body is cut does not matter ----------------------------------------------------------------------------

near_delimiters = st.lists(
    st.sampled_from([b"\r", b"\n", b"-", b"--", b"\r\n--", b"bound-", b"\r\n--bound-", b"ary", b"\0", b"x" * 100]),
    max_size=8,
).map(b"".join)
contents = (near_delimiters | st.binary(max_size=200)).filter(lambda data: b"\r\n--" + B.encode() not in b"\r\n" + data)
words = st.text(st.characters(categories=["L", "N"], include_characters=" .-_"), min_size=1, max_size=20)
borders = st.lists(st.integers(min_value=0, max_value=10_000), max_size=30)


@settings(deadline=None)
@example([], [1, 2, 3, 4], b"\r\n")
@given(st.lists(st.tuples(words, st.none() | words, contents), max_size=5), borders, st.sampled_from([b"", b"\r\n"]))
def test_the_parts_are_what_was_sent_wherever_the_body_is_cut(
    sent: list[tuple[str, str | None, bytes]], places: list[int], preamble: bytes
) -> None:
    body = preamble
    for name, filename, data in sent:
        extra = "" if filename is None else f'; filename="{filename}"\r\nContent-Type: image/png'
        body += part(f'Content-Disposition: form-data; name="{name}"{extra}', data)
    body += END
    found = received(cut(body, places))
    assert [(one.head.name, one.data) for one in found] == [(name, data) for name, _, data in sent]
    for one, (_, filename, _) in zip(found, sent, strict=True):
        assert (one.head.filename is None) == (filename is None)
        assert one.head.content_type == ("text/plain" if filename is None else "image/png")
    reference = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
        f"Content-Type: multipart/form-data; boundary={B}\r\n\r\n".encode() + body
    )
    parts = [one for one in reference.walk() if not one.is_multipart()] if sent else []
    # Of carriage returns that stand alone, the standard library makes lines.
    if not any(b"\r" in data or b"\n" in data for _, _, data in sent):
        assert [one.data for one in found] == [one.get_payload(decode=True) for one in parts]


pieces = st.lists(
    st.sampled_from(
        [
            FIELD,
            END,
            b"--bound-ary",
            b"\r\n--bound-ary",
            b"\r\n",
            b"\r",
            b"\n",
            b"--",
            b"Content-Disposition: form-data; name=x",
            b"Content-Disposition: form-data; name=y; filename=f\r\n",
            b" folded",
            b"x: y\n",
            b":",
            b"text",
            b"\xff",
            b"a" * 9000,
        ]
    ),
    max_size=12,
).map(b"".join)


@settings(deadline=None)
@given(pieces, borders)
@example(b"text\r\n" + FIELD + END, [3])
def test_broken_bodies_are_broken_wherever_they_are_cut(body: bytes, places: list[int]) -> None:
    def outcome(chunks: list[bytes]) -> object:
        try:
            return [(one.head, one.data) for one in received(chunks)]
        except RequestError as error:
            return error.status, error.slug

    whole = outcome([body])
    cuts = outcome(cut(body, places))
    singly = outcome([body[index : index + 1] for index in range(min(len(body), 5_000))] + [body[5_000:]])
    if whole != cuts or whole != singly:
        # Whichever of two faults is seen first may depend on it, but not whether there is one.
        assert isinstance(whole, tuple)
        assert isinstance(cuts, tuple)
        assert isinstance(singly, tuple)


# -- what a part's header means ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "name", "filename"),
    [
        ('name="a"', "a", None),
        ("name=a", "a", None),
        ('name=""', "", None),
        ('name="größe 😀"', "größe 😀", None),
        ('name="a%22b"', 'a"b', None),
        ('name="a\\"b"', 'a"b', None),
        ("name*=utf-8''gr%C3%B6%C3%9Fe", "größe", None),
        ('name="f"; filename="a.txt"', "f", "a.txt"),
        ('name="f"; filename=""', "f", ""),
        ('name="f"; filename="naïve 😀.txt"', "f", "naïve 😀.txt"),
        ('name="f"; filename="a;b=c.txt"', "f", "a;b=c.txt"),
        ('name="f"; filename="a%22b.txt"', "f", 'a"b.txt'),
        ('name="f"; filename="C:\\Users\\me\\a.txt"', "f", "a.txt"),
        ('name="f"; filename="../../etc/passwd"', "f", "passwd"),
        ('name="f"; filename="..\\..\\boot.ini"', "f", "boot.ini"),
        ('name="f"; filename=".."', "f", "unnamed"),
        ('name="f"; filename="/"', "f", "unnamed"),
        ('name="f"; filename="a%0D%0Ab"', "f", "a__b"),
        ('name="f"; filename="\u202egnp.exe"', "f", "_gnp.exe"),
        ('name="f"; filename="plain.txt"; filename*=UTF-8\'en\'na%C3%AFve.txt', "f", "naïve.txt"),
        ("name=\"f\"; filename*=iso-8859-1''%e9t%e9.txt", "f", "été.txt"),
        ("name=\"f\"; filename*=utf-8''..%2F..%2Fx", "f", "x"),
        ('name="f"; filename="plain.txt"; filename*=utf-8\'\'%FF', "f", "plain.txt"),
        ('name="f"; filename*0="long "; filename*1="name.txt"', "f", "long name.txt"),
        ('name="f"; filename*0*=utf-8\'\'%e2%82%ac; filename*1=" rates.txt"', "f", "€ rates.txt"),
        ("name=f ; filename = a.txt ;", "f", "a.txt"),
        ('NAME="f"; FileName="a.txt"', "f", "a.txt"),
    ],
)
def test_names(parameters: str, name: str, filename: str | None) -> None:
    head = only(f"Content-Disposition: form-data; {parameters}").head
    assert (head.name, head.filename) == (name, filename)


def test_a_long_file_name_is_cut_to_what_file_systems_take() -> None:
    head = only(f'Content-Disposition: form-data; name="f"; filename="{"é" * 1000}.jpeg"').head
    assert head.filename is not None
    assert len(head.filename.encode()) <= 255
    assert head.filename.endswith("é.jpeg")


def test_headers_are_there_by_their_lower_case_names() -> None:
    header = 'content-disposition: form-data; name="a"\r\nContent-Type: Text/CSV; charset="ISO-8859-1"\r\nX-Note: hé'
    head = only(header).head
    assert head.content_type == 'Text/CSV; charset="ISO-8859-1"'
    assert head.charset == "ISO-8859-1"
    assert head.headers["x-note"] == "hé"


def test_a_header_line_may_be_folded() -> None:
    assert only('Content-Disposition: form-data;\r\n name="a"').head.name == "a"


@pytest.mark.parametrize("encoding", ["binary", "8bit", "7BIT"])
def test_transfer_encodings_that_change_nothing(encoding: str) -> None:
    assert only(f"Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: {encoding}").data == b"data"


def test_a_file_that_is_itself_a_multipart_is_a_file() -> None:
    header = "Content-Disposition: form-data; name=a; filename=a.mht\r\nContent-Type: multipart/related; boundary=x"
    assert only(header, b"--x\r\n\r\n--x--").head.content_type == "multipart/related; boundary=x"


def test_a_content_length_that_is_right() -> None:
    assert only("Content-Disposition: form-data; name=a\r\nContent-Length: 4").data == b"data"


# -- what surrounds the parts -----------------------------------------------------------------------------------------


def test_a_form_without_parts() -> None:
    assert received([END]) == []


def test_preamble_and_epilogue_are_ignored() -> None:
    (found,) = received([b"This is a form.\r\n" + FIELD + END + b"Thank you.", b" Goodbye."])
    assert found.data == b"data"


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", "abc"),
        ('Multipart/Form-Data;boundary="a b"', "a b"),
        (
            "multipart/form-data; charset=utf-8; BOUNDARY=----WebKitFormBoundary7MA4YWxkTrZu0gW",
            "-" * 4 + "WebKitFormBoundary7MA4YWxkTrZu0gW",
        ),
    ],
)
def test_boundaries(content_type: str, boundary: str) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 415),
        ("", 415),
        ("application/json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/mixed; boundary=x", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ('multipart/form-data; boundary=""', 400),
        ("multipart/form-data; boundary=" + "x" * 71, 400),
        ('multipart/form-data; boundary="x "', 400),
        ('multipart/form-data; boundary="a\\nb"', 400),
        ("multipart/form-data; boundary=é", 400),
        ("multipart/form-data; boundary=a; boundary=b", 400),
        ('multipart/form-data; boundary="a', 400),
    ],
)
def test_content_types_that_are_refused(content_type: str | None, status: int) -> None:
    with pytest.raises(RequestError) as caught:
        boundary_of(content_type)
    assert caught.value.status == status


# -- what is refused --------------------------------------------------------------------------------------------------

DISPOSITION = "Content-Disposition: form-data; name=a"


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        pytest.param(b"", 400, "body-incomplete", id="nothing"),
        pytest.param(b"--bound", 400, "body-incomplete", id="less than a boundary"),
        pytest.param(b"text", 400, "bad-request", id="no boundary"),
        pytest.param(b"x" * 10_000, 400, "bad-request", id="no boundary for long"),
        pytest.param(b"text" + FIELD + END, 400, "bad-request", id="text before the boundary"),
        pytest.param(FIELD, 400, "body-incomplete", id="no end"),
        pytest.param(FIELD + END[:-4], 400, "body-incomplete", id="half an end"),
        pytest.param(FIELD + END[:-3], 400, "body-incomplete", id="most of an end"),
        pytest.param(part(DISPOSITION)[:-10], 400, "body-incomplete", id="in the data"),
        pytest.param(part(DISPOSITION)[:20], 400, "body-incomplete", id="in the header"),
        pytest.param(FIELD.replace(B.encode(), B.encode() + b"x") + END, 400, "bad-request", id="another boundary"),
        pytest.param(FIELD + b"--bound-aryx\r\n" + END, 400, "bad-request", id="text after a boundary"),
        pytest.param((FIELD + END).replace(b"\r\n", b"\n"), 400, "bad-request", id="bare line feeds"),
        pytest.param(part(DISPOSITION + "\nX-Y: z") + END, 400, "bad-request", id="a bare line feed in a header"),
        pytest.param(part(DISPOSITION + "\rX-Y: z") + END, 400, "bad-request", id="a bare carriage return in a header"),
        pytest.param(part(DISPOSITION + "\0") + END, 400, "bad-request", id="a NUL in a header"),
        pytest.param(part("X-Y: z") + END, 400, "bad-request", id="no disposition"),
        pytest.param(part("") + END, 400, "bad-request", id="no header"),
        pytest.param(part("Content-Disposition: attachment; name=a") + END, 400, "bad-request", id="attachment"),
        pytest.param(part("Content-Disposition: form-data") + END, 400, "bad-request", id="no name"),
        pytest.param(
            part("Content-Disposition: form-data; filename=a") + END, 400, "bad-request", id="only a filename"
        ),
        pytest.param(part(DISPOSITION + "; name=b") + END, 400, "bad-request", id="two names"),
        pytest.param(part(DISPOSITION + '; filename="x') + END, 400, "bad-request", id="an open quotation"),
        pytest.param(part(f"{DISPOSITION}\r\n{DISPOSITION}") + END, 400, "bad-request", id="two dispositions"),
        pytest.param(
            part(DISPOSITION + "\r\nContent-Length: 3") + END, 400, "bad-request", id="too long for its length"
        ),
        pytest.param(part(DISPOSITION + "\r\nContent-Length: 5") + END, 400, "bad-request", id="too short for it"),
        pytest.param(part(DISPOSITION + "\r\nContent-Length: +4") + END, 400, "bad-request", id="an odd length"),
        pytest.param(part(DISPOSITION + "\r\nno colon") + END, 400, "bad-request", id="no colon"),
        pytest.param(part(DISPOSITION + "\r\nb@d: x") + END, 400, "bad-request", id="a bad header name"),
        pytest.param(FIELD.replace(b'"a"', b'"\xff"') + END, 400, "bad-request", id="a name that is not UTF-8"),
        pytest.param(
            part(DISPOSITION + "\r\nContent-Type: multipart/mixed; boundary=x") + END,
            415,
            "unsupported-media-type",
            id="nested",
        ),
        pytest.param(
            part(DISPOSITION + "\r\nContent-Transfer-Encoding: base64") + END,
            415,
            "unsupported-media-type",
            id="base64",
        ),
        pytest.param(part(DISPOSITION + "\r\nX: " + "y" * 9000) + END, 413, "too-large", id="a long line"),
        pytest.param(part(DISPOSITION + "\r\nX: y" * 1 + "\r\nA: b" * 20) + END, 413, "too-large", id="many lines"),
        pytest.param(FIELD + END + b"x" * 500_000, 400, "bad-request", id="a long epilogue"),
    ],
)
def test_refusals(body: bytes, status: int, slug: str) -> None:
    for size in (1, 7, 20_000):
        if size > 7 or len(body) < 20_000:
            error = refusal([body[start : start + size] for start in range(0, len(body), size)])
            assert (error.status, error.slug) == (status, slug), error.detail
            assert len(error.detail) < 500


def test_a_header_without_an_end_is_refused_in_bounded_memory() -> None:
    def endless() -> Iterable[bytes]:
        yield b"--bound-ary\r\nContent-Disposition: "
        for _ in range(1000):
            yield b"x" * 65536

    tracemalloc.start()
    try:
        assert refusal(endless()).status == 413
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_what_comes_after_a_refusal_is_not_read_as_if_nothing_were() -> None:
    reader = MultipartReader(B)
    with pytest.raises(RequestError):
        list(reader.feed(part("X-Y: z")))
    with pytest.raises(RequestError):
        list(reader.feed(FIELD + END))
    with pytest.raises(RequestError):
        reader.finish()
