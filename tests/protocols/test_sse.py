import re
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.protocols.sse import Decoder, Event, EventTooLargeError, comment, encode


def decode(raw: bytes) -> list[Event]:
    return Decoder().feed(raw)


def chunks(raw: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    return (raw[a:b] for a, b in pairwise(edges))


def test_an_event_is_written_field_by_field() -> None:
    assert encode("hi", id=7, event="greet", retry=1500) == b"event: greet\nid: 7\nretry: 1500\ndata: hi\n\n"
    assert encode(b"hi") == b"data: hi\n\n"
    assert encode("") == b"data: \n\n"
    assert encode(id="") == b"id: \n\n"
    assert encode(retry=0) == b"retry: 0\n\n"
    assert encode("é") == "data: é\n\n".encode()


def test_every_line_end_starts_a_data_line() -> None:
    assert encode("a\nb\rc\r\nd\n") == b"data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b", "\n"])
def test_ids_and_types_cannot_break_out_of_their_field(bad: str) -> None:
    with pytest.raises(ValueError, match="SSE id"):
        encode("x", id=bad)
    with pytest.raises(ValueError, match="SSE event"):
        encode("x", event=bad)


def test_a_negative_retry_and_lone_surrogates_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        encode(retry=-1)
    with pytest.raises(ValueError, match="surrogates"):
        encode("\ud800")


def test_comments_are_ignored_wherever_they_stand() -> None:
    assert comment() == b":\n\n"
    assert comment("a\r\ndata: b\n\nid: 1") == b": a\n: data: b\n: \n: id: 1\n\n"
    assert decode(comment("x") + encode("a") + comment() + encode("b")) == [Event("a"), Event("b")]


# The examples of the WHATWG text.


def test_example_messages() -> None:
    raw = (
        b"data: This is the first message.\n\n"
        b"data: This is the second message, it\ndata: has two lines.\n\n"
        b"data: This is the third message.\n\n"
    )
    assert [e.data for e in decode(raw)] == [
        "This is the first message.",
        "This is the second message, it\nhas two lines.",
        "This is the third message.",
    ]


def test_example_types() -> None:
    raw = b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n"
    assert decode(raw) == [Event("73857293", "add"), Event("2153", "remove"), Event("113411", "add")]


def test_example_stock() -> None:
    assert decode(b"data: YHOO\ndata: +2\ndata: 10\n\n") == [Event("YHOO\n+2\n10")]


def test_example_ids_and_a_last_block_that_is_not_terminated() -> None:
    raw = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event"
    assert decode(raw) == [Event("first event", id="1"), Event("second event", id="")]
    assert decode(raw + b"\n\n")[2] == Event(" third event")


def test_example_empty_data() -> None:
    assert decode(b"data\n\ndata\ndata\n\ndata:") == [Event(""), Event("\n")]


def test_example_one_space_is_optional() -> None:
    assert decode(b"data:test\n\ndata: test\n\n") == [Event("test"), Event("test")]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_all_line_ends_are_equal_also_byte_by_byte(end: bytes) -> None:
    raw = b"\xef\xbb\xbf: c\nid: 1\ndata: a\ndata: b\n\nevent: e\ndata: c\n\n".replace(b"\n", end)
    expected = [Event("a\nb", id="1"), Event("c", "e", "1")]
    assert decode(raw) == expected
    decoder = Decoder()
    assert [e for i in range(len(raw)) for e in decoder.feed(raw[i : i + 1])] == expected


def test_a_line_that_ends_in_cr_counts_at_once() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: a\r\r") == [Event("a")]
    assert decoder.feed(b"\n") == []
    assert decoder.feed(b"") == []
    assert decoder.feed(b"data: b\r") == []
    assert decoder.feed(b"\n\r") == [Event("b")]


def test_only_one_byte_order_mark_is_dropped_and_only_at_the_start() -> None:
    bom = b"\xef\xbb\xbf"
    assert decode(bom + b"data: a\n\n") == [Event("a")]
    assert decode(bom * 2 + b"data: a\n\n") == []
    assert decode(b"data: a\n\n" + bom + b"data: b\n\n") == [Event("a")]
    decoder = Decoder()
    assert decoder.feed(b"\xef") == []
    assert decoder.feed(b"\xbb") == []
    assert decoder.feed(b"\xbfdata: a\n\n") == [Event("a")]


def test_ids_persist_until_replaced_and_those_with_nul_are_ignored() -> None:
    decoder = Decoder()
    raw = b"id: 1\ndata: a\n\ndata: b\n\nid: 2\0\ndata: c\n\nid\ndata: d\n\n"
    assert [(e.data, e.id) for e in decoder.feed(raw)] == [("a", "1"), ("b", "1"), ("c", "1"), ("d", "")]


def test_an_id_counts_only_once_its_block_is_closed() -> None:
    decoder = Decoder("5")
    assert decoder.feed(b"data: a\n\nid: 6\ndata: b\n") == [Event("a", id="5")]
    assert decoder.last_event_id == "5"
    assert decoder.feed(b"\n") == [Event("b", id="6")]
    assert decoder.last_event_id == "6"
    assert decoder.feed(b"id: 7\n\n") == []  # no data, no event; but the id counts
    assert decoder.last_event_id == "7"


def test_a_type_without_data_is_forgotten() -> None:
    assert decode(b"event: e\n\ndata: a\n\nevent:\ndata: b\n\n") == [Event("a"), Event("b")]


def test_retry_is_kept_with_its_event_and_on_the_decoder() -> None:
    decoder = Decoder()
    assert decoder.feed(b"retry: 1500\n\ndata: a\n\nretry: 20\ndata: b\n\n") == [Event("a"), Event("b", retry=20)]
    assert decoder.retry == 20


@pytest.mark.parametrize("value", [b"", b"-1", b"1.5", b"1s", b" 1", b"1" * 5000, "\u0661".encode()])
def test_a_retry_of_other_than_digits_is_ignored(value: bytes) -> None:
    decoder = Decoder()
    assert decoder.feed(b"retry: " + value + b"\ndata: a\n\n") == [Event("a")]
    assert decoder.retry is None


def test_unknown_fields_and_odd_names_are_ignored() -> None:
    assert decode(b"Data: x\n data: x\nfoo: bar\nfoo\ndata : x\ndata: a:b\n\n") == [Event("a:b")]


def test_invalid_utf8_is_replaced() -> None:
    assert decode(b"data: a\xff\xe2\x82\n\n") == [Event("a��")]


def test_characters_that_only_python_takes_for_line_ends_are_data() -> None:
    text = "a\x0b\x0c\x1c\x85\u2028\u2029b"
    assert decode(encode(text)) == [Event(text)]


def test_an_event_larger_than_allowed_is_an_error() -> None:
    with pytest.raises(EventTooLargeError):
        Decoder(max_event=100).feed(b"data: " + b"x" * 200)
    with pytest.raises(EventTooLargeError):
        Decoder(max_event=100).feed(b"data: " + b"x" * 200 + b"\n\n")
    decoder = Decoder(max_event=100)
    for _ in range(16):
        decoder.feed(b"data: 12345\n")
    with pytest.raises(EventTooLargeError):
        decoder.feed(b"data: 12345\n")
    decoder = Decoder(max_event=100)
    for _ in range(100):
        decoder.feed(b"x")
    with pytest.raises(EventTooLargeError):
        decoder.feed(b"x")


def test_events_that_fit_do_not_add_up() -> None:
    decoder = Decoder(max_event=20)
    for _ in range(100):
        assert decoder.feed(b"da") == []
        assert decoder.feed(b"ta: 12345678\n: a comment\n") == []
        assert decoder.feed(b"\n") == [Event("12345678")]


text_without_breaks = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]))
events_strategy = st.lists(
    st.tuples(
        st.text(st.sampled_from("a \r\n:\0") | st.characters(exclude_categories=["Cs"])),
        text_without_breaks | st.none(),
        text_without_breaks | st.none(),
        st.integers(0, 10**9) | st.none(),
    )
)


@settings(deadline=None)
@given(events_strategy, st.lists(st.integers(0, 10**6), max_size=30))
def test_what_is_encoded_is_decoded_however_it_is_cut(
    sent: list[tuple[str, str | None, str | None, int | None]], cuts: list[int]
) -> None:
    raw = b"".join(encode(data, id=id_, event=type_, retry=retry) for data, id_, type_, retry in sent)
    expected, last = [], ""
    for data, id_, type_, retry in sent:
        last = last if id_ is None else id_
        expected.append(Event(re.sub("\r\n|\r", "\n", data), type_ or "message", last, retry))
    decoder = Decoder()
    assert [e for chunk in chunks(raw, cuts) for e in decoder.feed(chunk)] == expected
    assert decoder.last_event_id == last


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([b"\r", b"\n", b"\r\n", b"data", b"id", b"retry", b"event", b":", b" ", b"1", b"\0", b"\xef"])
        | st.binary(max_size=4)
    ).map(b"".join),
    st.lists(st.integers(0, 10**6), max_size=30),
)
def test_cuts_make_no_difference_to_any_bytes(raw: bytes, cuts: list[int]) -> None:
    whole, cut = Decoder(), Decoder()
    expected = whole.feed(raw)
    assert [e for chunk in chunks(raw, cuts) for e in cut.feed(chunk)] == expected
    assert (cut.last_event_id, cut.retry) == (whole.last_event_id, whole.retry)


def test_a_long_line_in_small_chunks_takes_linear_time() -> None:
    decoder, began = Decoder(), time.perf_counter()
    decoder.feed(b"data: ")
    for _ in range(50_000):
        decoder.feed(b"x" * 100)
    assert len(decoder.feed(b"\n\n")[0].data) == 5_000_000
    assert time.perf_counter() - began < 5
