import email.parser
import email.policy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.protocols.multipart import ByteRangesBody
from penstock.protocols.ranges import ByteRange, content_range


def render(body: ByteRangesBody, content: bytes) -> bytes:
    parts = [body.part_head(i) + content[part.start : part.stop] for i, part in enumerate(body.ranges)]
    return b"".join(parts) + body.tail


def test_the_body_is_framed_as_in_rfc_9110() -> None:
    ranges = (ByteRange(500, 1000), ByteRange(7000, 8000))
    body = ByteRangesBody(ranges, 8000, "application/pdf", "THIS_STRING_SEPARATES")
    assert body.content_type == "multipart/byteranges; boundary=THIS_STRING_SEPARATES"
    assert body.part_head(0) == (
        b"--THIS_STRING_SEPARATES\r\nContent-Type: application/pdf\r\nContent-Range: bytes 500-999/8000\r\n\r\n"
    )
    assert body.part_head(1) == (
        b"\r\n--THIS_STRING_SEPARATES\r\nContent-Type: application/pdf\r\nContent-Range: bytes 7000-7999/8000\r\n\r\n"
    )
    assert body.tail == b"\r\n--THIS_STRING_SEPARATES--\r\n"


def test_boundaries_are_random_and_need_no_quotes() -> None:
    boundaries = {ByteRangesBody([ByteRange(0, 1)], 1, None).boundary for _ in range(20)}
    assert len(boundaries) == 20
    assert all(boundary.isalnum() for boundary in boundaries)


def test_an_unknown_type_and_length_are_left_open() -> None:
    head = ByteRangesBody([ByteRange(0, 1)], None, None, "b").part_head(0)
    assert head == b"--b\r\nContent-Range: bytes 0-0/*\r\n\r\n"


@pytest.mark.parametrize(
    ("media_type", "boundary"),
    [("a/b\r\nX: y", "b"), ("", "b"), ("€", "b"), ("a/b", ""), ("a/b", "b\r\n"), ("a/b", "b b"), ("a/b", "b" * 71)],
)
def test_what_a_header_cannot_hold_is_refused(media_type: str, boundary: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        ByteRangesBody([ByteRange(0, 1)], 1, media_type, boundary)


def test_no_range_and_a_range_past_the_end_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ByteRangesBody([], 1, None)
    with pytest.raises(ValueError, match="past the complete length"):
        ByteRangesBody([ByteRange(0, 1), ByteRange(1, 3)], 2, None)


ranges_strategy = st.lists(
    st.tuples(st.integers(0, 900), st.integers(1, 100)).map(lambda t: ByteRange(t[0], t[0] + t[1])),
    min_size=1,
    max_size=8,
)


@settings(deadline=None)
@given(
    ranges_strategy,
    st.sampled_from([1000, 123456789, None]),
    st.sampled_from([None, "text/plain", 'text/plain; charset="utf-8"']),
)
def test_the_content_length_is_that_of_the_bytes_and_parsers_find_every_part(
    ranges: list[ByteRange], complete: int | None, media_type: str | None
) -> None:
    content = bytes(48 + i % 10 for i in range(1000))
    body = ByteRangesBody(ranges, complete, media_type)
    raw = render(body, content)
    assert body.content_length == len(raw)

    head = f"Content-Type: {body.content_type}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + raw)
    parts = [part for part in message.walk() if not part.is_multipart()]
    assert [part["Content-Range"] for part in parts] == [content_range(part, complete) for part in ranges]
    payloads = [part.get_payload(decode=True) for part in parts]
    assert payloads == [content[part.start : part.stop] for part in ranges]
