"""Framings: what a record looks like on each transport, and that outputs can be shared, joined and cut."""

from __future__ import annotations

import json
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.protocols.framings import Ending, EventFraming, Framing, MessageFraming, NDJSONFraming, Runs, kind_of
from penstock.protocols.framings.characters import Characters
from penstock.protocols.framings.framing import Kind
from penstock.protocols.records import RecordTooLongError
from penstock.protocols.sse import Decoder, Event, encode

RUN = b'{"type":"say","text":"\xc3\xa9"}\n[1,2]\n"x"\n'
TEXT = b'unix\nwindows\r\n\n"quoted"\n'


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("application/x-ndjson", "json"),
        ("Application/JSONL; charset=utf-8", "json"),
        ("text/plain", "text"),
        ("text/csv; charset=utf-8", "text"),
        ("video/mp4", "bytes"),
    ],
)
def test_what_a_stream_holds_follows_from_its_type(content_type: str, kind: str) -> None:
    assert kind_of(content_type) == kind


def test_events_have_the_offset_after_each_record_as_id() -> None:
    assert Decoder().feed(EventFraming("json").frame(100, RUN)) == [
        Event('{"type":"say","text":"é"}', id="127"),
        Event("[1,2]", id="133"),
        Event('"x"', id="137"),
    ]


def test_the_quick_way_writes_the_same_events_as_the_general_one() -> None:
    for line in (b"", b"x", b' {"a": 1}', "é".encode()):
        assert EventFraming("text").frame(122 - len(line), line + b"\n") == encode(line, id=123)


def test_an_unfinished_last_record_ends_where_the_stream_does() -> None:
    for framing in (EventFraming("json"), EventFraming("json", "type")):
        assert [event.id for event in Decoder().feed(framing.frame(0, b"1\n22"))] == ["2", "4"]
    assert b'{"offset":4,"data":22}\n' in NDJSONFraming("json", envelope=True).frame(0, b"1\n22")
    assert NDJSONFraming("json").frame(0, b"1\n22") == b"1\n22\n"


@pytest.mark.parametrize(
    ("record", "event"),
    [
        ('{"type":"say"}', "say"),
        ('{"type":"é"}', "é"),
        ('{"type":"a b"}', "a b"),
        ('{"type":"end"}', "message"),
        ('{"type":"error"}', "message"),
        ('{"type":"a\\nid: 9"}', "message"),
        ('{"type":"a\\u2028b"}', "message"),
        ('{"type":""}', "message"),
        ('{"type":7}', "message"),
        ('{"other":"say"}', "message"),
        ('["type"]', "message"),
        ("not json", "message"),
    ],
)
def test_a_member_names_the_events_type(record: str, event: str) -> None:
    (got,) = Decoder().feed(EventFraming("json", "type").frame(0, record.encode() + b"\n"))
    assert (got.event, got.data, got.id) == (event, record, str(len(record.encode()) + 1))


def test_lines_of_text_are_events_whatever_ends_them() -> None:
    events = Decoder().feed(EventFraming("text").frame(0, TEXT))
    assert [(event.data, event.id) for event in events] == [
        *(("unix", "5"), ("windows", "14"), ("", "15"), ('"quoted"', "24"))
    ]


def test_plain_ndjson_of_json_is_the_stream_itself() -> None:
    assert NDJSONFraming("json").frame(3, RUN) == RUN
    lines = NDJSONFraming("text").frame(3, TEXT).splitlines()
    assert [json.loads(line) for line in lines] == ["unix", "windows", "", '"quoted"']
    assert b64decode(json.loads(NDJSONFraming("bytes").frame(0, b"\xff\n\0"))) == b"\xff\n\0"


def test_envelopes_tell_each_records_offset() -> None:
    lines = NDJSONFraming("json", envelope=True).frame(100, RUN).splitlines()
    assert [json.loads(line) for line in lines] == [
        {"offset": 127, "data": {"type": "say", "text": "é"}},
        {"offset": 133, "data": [1, 2]},
        {"offset": 137, "data": "x"},
    ]


def test_a_message_holds_a_whole_run_and_its_end() -> None:
    assert json.loads(MessageFraming("json").frame(100, RUN)) == {
        "offset": 137,
        "records": [{"type": "say", "text": "é"}, [1, 2], "x"],
    }
    assert json.loads(MessageFraming("bytes").frame(1, b"\xff"))["offset"] == 2
    assert not MessageFraming("json").joins


@pytest.mark.parametrize("line", [b'1],"offset":9,"records":[2', b"{", b"NaN", b" 1", b"", b"\xff", b'"a\x01"'])
def test_a_line_that_is_no_json_breaks_nothing_around_it(line: bytes) -> None:
    run = b"1\n" + line + b"\n2\n"
    message = json.loads(MessageFraming("json").frame(0, run))
    assert message == {"offset": len(run), "records": [1, line.decode(errors="replace"), 2]}
    lines = NDJSONFraming("json", envelope=True).frame(0, run).splitlines()
    assert [json.loads(each)["data"] for each in lines] == message["records"]


@pytest.mark.parametrize("framing", [EventFraming("json"), EventFraming("json", "type"), NDJSONFraming("text", True)])
@given(records=st.lists(st.binary(max_size=8).map(lambda data: data.replace(b"\n", b" ")), min_size=2, max_size=6))
def test_outputs_that_join_depend_on_nothing_but_their_run(framing: Framing, records: list[bytes]) -> None:
    run = b"".join(record + b"\n" for record in records)
    first = len(records[0]) + 1
    assert framing.joins
    assert framing.frame(7, run[:first]) + framing.frame(7 + first, run[first:]) == framing.frame(7, run)


def test_framings_are_keys_of_what_is_shared() -> None:
    assert len({EventFraming("json"), EventFraming("json"), EventFraming("json", "t"), NDJSONFraming("json")}) == 3


def test_how_each_tells_the_end() -> None:
    failed = Ending("failed", 9, "out of\nsmoke", (("code", 7),))
    told = {"state": "failed", "offset": 9, "reason": "out of\nsmoke", "code": 7}
    (event,) = Decoder().feed(EventFraming("json").end(failed))
    assert (event.event, event.id, json.loads(event.data)) == ("error", "9", told)
    assert Decoder().feed(EventFraming("json").end(Ending("closed", 9)))[0].event == "end"
    assert json.loads(NDJSONFraming("json", envelope=True).end(failed)) == told
    assert json.loads(NDJSONFraming("json").end(failed))["stream-state"] == "failed"
    assert json.loads(MessageFraming("json").end(failed)) == {"end": told}


KINDS: list[Kind] = ["json", "bytes"]


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_runs_begin_and_end_where_records_do(kind: Kind, data: st.DataObject) -> None:
    whole = data.draw(st.lists(st.sampled_from([b"a", b"\n", b"bc"])).map(b"".join))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)))))
    runs = Runs(kind, 10)
    got = b""
    for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        offset, run = runs.feed(whole[start:stop])
        assert offset == 10 + len(got)
        assert kind == "bytes" or not run or run.endswith(b"\n")
        got += run
    if kind == "json":
        assert got == whole[: whole.rfind(b"\n") + 1]
    offset, rest = runs.rest()
    assert (offset, got + rest) == (10 + len(got), whole)


@pytest.mark.parametrize("sizes", [[5, 4], [20], [3, 3, 2, 4]])
def test_a_record_that_is_too_long_is_refused_where_it_begins(sizes: list[int]) -> None:
    runs = Runs("text", 5, max_record=8)
    assert runs.feed(b"12345678\n") == (5, b"12345678\n")
    for size in sizes[:-1]:
        assert runs.feed(b"x" * size) == (14, b"")
    with pytest.raises(RecordTooLongError, match="offset 14") as caught:
        runs.feed(b"x" * sizes[-1])
    assert caught.value.offset == 14


def test_a_long_record_after_short_ones_of_the_same_chunk_is_refused() -> None:
    with pytest.raises(RecordTooLongError, match="offset 4"):
        Runs("text", 0, max_record=8).feed(b"12\n\n123456789\n")
    assert Runs("text", 0, max_record=8).feed(b"12\n" * 100) == (0, b"12\n" * 100)


@given(
    data=st.one_of(st.text(max_size=12).map(str.encode), st.binary(max_size=24)),
    cuts=st.lists(st.integers(0, 24), max_size=6),
)
def test_characters_are_cut_nowhere_wherever_their_bytes_are(data: bytes, cuts: list[int]) -> None:
    cutter = Characters(7)
    runs: list[tuple[int, bytes]] = []
    at = 0
    for cut in (*sorted(min(cut, len(data)) for cut in cuts), len(data)):
        runs.append(cutter.take(7 + at, data[at:cut]))
        assert len(data[:cut]) - sum(len(run) for _, run in runs) < 4  # more than three bytes are never held
        at = cut
    runs.append(cutter.rest())
    assert b"".join(run for _, run in runs) == data
    assert [offset for offset, _ in runs] == [7 + sum(len(run) for _, run in runs[:n]) for n in range(len(runs))]
    assert "".join(run.decode(errors="replace") for _, run in runs) == data.decode(errors="replace")


def test_characters_go_on_behind_what_was_dropped() -> None:
    cutter = Characters()
    assert cutter.take(0, b"a\xc3") == (0, b"a")
    assert cutter.take(10, b"b") == (10, b"b")
    assert cutter.rest() == (11, b"")
