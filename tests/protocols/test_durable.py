from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.model import Producer, StreamInfo
from penstock.protocols import durable
from penstock.protocols.durable import MalformedError
from penstock.protocols.sse import Decoder

DAY = 86_400.0
EPOCH = 1_728_432_000.0  # October 9, 2024, midnight in UTC
offsets = st.integers(0, 2**53)


@given(st.lists(offsets, min_size=2))
def test_tokens_sort_as_their_offsets_do(values: list[int]) -> None:
    values.sort()
    tokens = [durable.offset(value) for value in values]
    assert tokens == sorted(tokens)
    assert [durable.position(token) for token in tokens] == values


def test_the_sentinels_are_no_offsets() -> None:
    assert durable.position("-1") == 0
    assert durable.position("now") is None
    assert durable.offset(0) == "0000000000000000_0000000000000000"


@pytest.mark.parametrize(
    "token",
    ["", "0", "-2", "1_1", "0000000000000000_1", " -1", "NOW", "0000000000000001_0000000000000000", "a,b", "\u0661"],
)
def test_what_the_server_did_not_give_is_no_offset(token: str) -> None:
    with pytest.raises(MalformedError):
        durable.position(token)


def test_a_cursor_is_the_number_of_the_interval() -> None:
    assert durable.cursor(EPOCH) == "0"
    assert durable.cursor(EPOCH + 19.9) == "0"
    assert durable.cursor(EPOCH + 20) == "1"
    assert durable.cursor(EPOCH + DAY) == "4320"


@given(st.integers(0, 10**12), st.floats(EPOCH, EPOCH + 100 * DAY))
def test_a_cursor_never_goes_back_nor_stays(given_cursor: int, now: float) -> None:
    assert int(durable.cursor(now, str(given_cursor))) > given_cursor or int(durable.cursor(now)) > given_cursor
    assert int(durable.cursor(now, str(given_cursor))) >= int(durable.cursor(now))


@pytest.mark.parametrize("nonsense", ["", "x", "-1", "9" * 40, "\u0661"])
def test_a_cursor_that_is_none_counts_as_none(nonsense: str) -> None:
    assert durable.cursor(EPOCH + DAY, nonsense) == "4320"


@pytest.mark.parametrize(("value", "seconds"), [("0", 0.0), ("1", 1.0), ("3600", 3600.0)])
def test_a_time_to_live_is_whole_seconds(value: str, seconds: float) -> None:
    assert durable.ttl(value) == seconds


@pytest.mark.parametrize("value", ["", "+1", "01", "1.0", "1e3", "-1", " 1", "\u0661", "9" * 20])
def test_a_time_to_live_has_one_spelling(value: str) -> None:
    with pytest.raises(MalformedError):
        durable.ttl(value)


def test_an_expiry_has_its_zone() -> None:
    assert durable.expiry("1970-01-02T00:00:00Z") == DAY
    assert durable.expiry("1970-01-02T01:00:00.5+01:00") == DAY + 0.5
    for value in ("", "1970-01-02", "1970-01-02T00:00:00", "tomorrow", "0001-01-01T00:00:00+23:00"):
        with pytest.raises(MalformedError):
            durable.expiry(value)
    assert durable.timestamp(DAY + 0.25) == "1970-01-02T00:00:00.250Z"


def test_the_fields_of_a_producer_go_together() -> None:
    assert durable.producer(None, None, None) is None
    assert durable.producer("p", "0", "9007199254740991") == Producer("p", 0, 2**53 - 1)
    for fields in (("p", "0", None), ("p", None, "0"), (None, "0", "0"), ("", "0", "0"), ("p" * 257, "0", "0")):
        with pytest.raises(MalformedError):
            durable.producer(*fields)
    for number in ("", "-1", "1.0", "1e3", "x", "9007199254740992", "\u0661"):
        with pytest.raises(MalformedError):
            durable.producer("p", number, "0")


@pytest.mark.parametrize(
    ("value", "closes"), [("true", True), ("TRUE", True), ("false", False), ("1", False), ("", False)]
)
def test_only_true_closes(value: str, closes: bool) -> None:
    assert durable.closes(value) is closes


def test_the_tag_changes_with_the_bytes_and_with_the_end() -> None:
    info = StreamInfo(name="s", incarnation="i", tail=5)
    closed = StreamInfo(name="s", incarnation="i", tail=5, closed=True)
    tags = [durable.etag(info, 0, 5), durable.etag(info, 0, 4), durable.etag(closed, 0, 5), durable.etag(info, 1, 5)]
    assert len(set(tags)) == len(tags)
    assert durable.etag(info, 0, 4) == durable.etag(closed, 0, 4)


def test_json_is_stored_as_lines_and_shown_as_it_was_declared() -> None:
    content_type, attributes = durable.stored_as("Application/JSON; charset=utf-8")
    info = StreamInfo(name="s", incarnation="i", content_type=content_type, attributes=attributes)
    assert info.content_type == "application/x-ndjson"
    assert durable.is_json(info)
    assert durable.media_type(info) == "Application/JSON; charset=utf-8"
    assert durable.array(b"1\n[2]\n") == b"[1,[2]]"
    assert durable.array(b"") == b"[]"
    assert durable.stored_as("application/x-ndjson") == ("application/x-ndjson", {})


@given(st.text(st.characters(exclude_characters="\0"), min_size=1))
def test_an_event_of_text_is_read_back_whatever_the_text_is(text: str) -> None:
    decoder = Decoder()
    (event, *others) = decoder.feed(durable.data_event(text.encode(errors="replace")))
    expected = text.encode(errors="replace").decode().replace("\r\n", "\n").replace("\r", "\n")
    assert (event.event, event.data, others) == ("data", expected, [])


def test_a_control_event_tells_where_the_reader_stands() -> None:
    def control(**options: bool) -> dict[str, object]:
        (event,) = Decoder().feed(durable.control_event(7, "12", **options))
        assert event.event == "control"
        told: dict[str, object] = json.loads(event.data)
        return told

    at = {"streamNextOffset": durable.offset(7)}
    assert control() == {**at, "streamCursor": "12"}
    assert control(up_to_date=True) == {**at, "streamCursor": "12", "upToDate": True}
    assert control(closed=True) == {**at, "upToDate": True, "streamClosed": True}


def test_cursors_of_a_long_connection_grow() -> None:
    cursors = [int(durable.cursor(EPOCH + seconds)) for seconds in range(0, 100, 5)]
    assert all(one <= other for one, other in pairwise(cursors))
