import json
import time
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.protocols.records import (
    MAX_NESTING,
    LineSplitter,
    RecordError,
    RecordTooLongError,
    has_records,
    json_record,
    json_records,
    text_record,
)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/x-ndjson", True),
        ("application/ndjson", True),
        ("application/jsonl", True),
        ("Application/JSONL; charset=utf-8", True),
        ("text/plain", True),
        ("TEXT/csv ; header=present", True),
        ("application/json", False),
        ("application/json-seq", False),
        ("application/octet-stream", False),
        ("video/mp4; x=text/plain", False),
        ("text", False),
        ("", False),
    ],
)
def test_which_content_types_have_records(content_type: str, expected: bool) -> None:
    assert has_records(content_type) is expected


@pytest.mark.parametrize(
    ("body", "record"),
    [
        (b'{"a": 1}', b'{"a":1}\n'),
        (b'\r\n\t [ 1 ,\n 2 , { "a b" : " c\\n \\" d" } ]\r\n', b'[1,2,{"a b":" c\\n \\" d"}]\n'),
        (b'"  \\\\" ', b'"  \\\\"\n'),
        (b"null", b"null\n"),
        (b' "" ', b'""\n'),
        ('{"é\u2028": "日本"}'.encode(), '{"é\u2028":"日本"}\n'.encode()),
        (b'{"a":1,"a":2}', b'{"a":1,"a":2}\n'),
    ],
)
def test_json_loses_white_space_between_its_tokens_only(body: bytes, record: bytes) -> None:
    assert json_record(body) == record


@pytest.mark.parametrize(
    "number",
    [b"1.10", b"1e400", b"-0", b"-0.0", b"1E+2", b"18446744073709551617", b"9" * 10_000, b"0.1000000000000000055"],
)
def test_numbers_keep_their_spelling(number: bytes) -> None:
    assert json_record(b" [ " + number + b" ] ") == b"[" + number + b"]\n"


def test_escaped_lone_surrogates_stay_escaped() -> None:
    record = json_record(b'[ "\\ud800" ]')
    assert record == b'["\\ud800"]\n'
    record.decode()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid JSON"),
        (b" \n", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[1,]", "not valid JSON"),
        (b"{'a':1}", "not valid JSON"),
        (b"1 2", "Extra data"),
        (b"{}\n{}", "Extra data"),
        (b"01", "not valid JSON"),
        (b"1.", "not valid JSON"),
        (b"+1", "not valid JSON"),
        (b"NaN", "NaN is not"),
        (b"[Infinity]", "Infinity is not"),
        (b"-Infinity", "-Infinity is not"),
        (b'"a\nb"', "control character"),
        (b'"\\x"', "escape"),
        (b'"\\ud80"', "escape"),
        (b'"abc', "Unterminated"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'"\xff"', "UTF-8.*byte 1"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b'"\xc0\xaf"', "UTF-8"),
        ('{"a":1}'.encode("utf-16"), "UTF-8"),
        (b"\0", "not valid JSON"),
    ],
)
def test_what_is_not_one_strict_json_text_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(RecordError, match=says):
        json_record(body)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_is_bounded(opening: bytes, closing: bytes) -> None:
    def nested(depth: int) -> bytes:
        return opening * depth + b"1" + closing * depth

    assert json_record(nested(MAX_NESTING)) == nested(MAX_NESTING) + b"\n"
    for body in (nested(MAX_NESTING + 1), nested(200_000), opening * 200_000):
        with pytest.raises(RecordError, match="nested deeper"):
            json_record(body)


def test_a_stack_that_ends_before_the_bound_is_an_error_of_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.protocols.records.MAX_NESTING", 10**6)
    with pytest.raises(RecordError, match="too deeply"):
        json_record(b"[" * 200_000)


def test_wide_documents_and_brackets_in_strings_are_not_nesting() -> None:
    wide = b"[" + b",".join([b"[{}]"] * 1000) + b"]"
    assert json_record(wide) == wide + b"\n"
    quoted = b'["\\"' + b"[" * 1000 + b'"]'
    assert json_record(quoted) == quoted + b"\n"


def test_hostile_json_is_refused_in_linear_time() -> None:
    began = time.perf_counter()
    for body in (b'["' + b'\\"[' * 300_000, b'"' * 300_001 + b"[" * 300, b"[" * 500 + b'"\\' * 300_000, b" " * 10**6):
        with pytest.raises(RecordError):
            json_record(body)
    assert time.perf_counter() - began < 5


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(json_values, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_a_record_means_what_the_body_meant_and_is_one_line(value: Any, indent: int | str | None, ascii_: bool) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_).encode(errors="backslashreplace")
    record = json_record(body)
    assert record.endswith(b"\n")
    assert record.count(b"\n") == 1
    assert b"\r" not in record
    assert json.loads(record) == json.loads(body)
    assert json_record(record) == record
    assert (
        record.decode()
        == json.dumps(value, separators=(",", ":"), ensure_ascii=ascii_).encode(errors="backslashreplace").decode()
        + "\n"
    )


@pytest.mark.parametrize(
    ("body", "record"),
    [
        (b"", b"\n"),
        (b"\n", b"\n"),
        (b"\r\n", b"\n"),
        (b"hello", b"hello\n"),
        (b"hello\n", b"hello\n"),
        (b"hello\r\n", b"hello\n"),
        (b"  tab\t\x0b\x0c ", b"  tab\t\x0b\x0c \n"),
        ("é\u2028\x85".encode(), "é\u2028\x85\n".encode()),
    ],
)
def test_a_text_record_is_one_line(body: bytes, record: bytes) -> None:
    assert text_record(body) == record
    assert text_record(record) == record


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"a\nb", "LF at character 1"),
        (b"a\n\n", "LF at character 1"),
        (b"a\r", "CR at character 1"),
        (b"\r\r\n", "CR at character 0"),
        (b"a\rb\n", "CR at character 1"),
        (b"a\0", "NUL at character 1"),
        (b"\xff", "not utf-8"),
    ],
)
def test_other_text_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(RecordError, match=says):
        text_record(body)


def test_text_of_other_charsets_becomes_utf8() -> None:
    assert text_record(b"caf\xe9\r\n", "ISO-8859-1") == "café\n".encode()
    assert text_record(b"\x80", "windows-1252") == "€\n".encode()
    with pytest.raises(RecordError, match="not US-ASCII"):
        text_record(b"\xe9", "US-ASCII")


@pytest.mark.parametrize("charset", ["", "punycode", "idna", "unicode_escape", "zlib", "utf-7", "nonsense", "\0"])
def test_other_charsets_are_refused(charset: str) -> None:
    with pytest.raises(RecordError, match="charset"):
        text_record(b"a", charset)


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=5) | st.sampled_from([b"\n", b"\r\n", b"a"])).map(b"".join),
    st.lists(st.integers(0, 10**6), max_size=20),
    st.integers(0, 2**40),
)
def test_lines_and_offsets_are_those_of_split_however_it_is_cut(raw: bytes, cuts: list[int], start: int) -> None:
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    *expected, rest = raw.split(b"\n")
    ends = list(accumulate((len(line) + 1 for line in expected), initial=start))
    plain, numbered = LineSplitter(10**6, start), LineSplitter(10**6, start)
    got, got_numbered = [], []
    for a, b in pairwise(edges):
        got += plain.feed(raw[a:b])
        assert plain.offset == ends[len(got)]
        assert plain.pending == raw[plain.offset - start : b]
        got_numbered += numbered.numbered(raw[a:b])
    assert got == expected
    assert got_numbered == list(zip(ends[1:], expected, strict=True))
    assert (plain.pending, numbered.pending) == (rest, rest)


def test_a_line_of_the_allowed_length_passes_and_one_byte_more_does_not() -> None:
    assert LineSplitter(5).feed(b"12345\n12345\n") == [b"12345", b"12345"]
    with pytest.raises(RecordTooLongError, match="offset 6 is longer than 5 bytes"):
        LineSplitter(5).feed(b"12345\n123456\n")


@pytest.mark.parametrize("rest", [b"toolong", b"toolong\n", b"toolong\nmore\n"])
def test_the_error_holds_the_records_before_the_long_one(rest: bytes) -> None:
    splitter = LineSplitter(3, offset=100)
    with pytest.raises(RecordTooLongError) as caught:
        splitter.feed(b"a\nbb\n" + rest)
    assert caught.value.records == [b"a", b"bb"]
    assert caught.value.offset == splitter.offset == 105


def test_a_long_line_in_chunks_is_stopped_at_the_limit() -> None:
    splitter = LineSplitter(10)
    assert splitter.feed(b"12345") == []
    assert splitter.feed(b"67890") == []
    assert splitter.pending == b"1234567890"
    with pytest.raises(RecordTooLongError, match="offset 0"):
        splitter.feed(b"x")


def test_asking_for_what_is_pending_changes_nothing() -> None:
    splitter = LineSplitter(10)
    assert splitter.pending == b""
    splitter.feed(b"ab")
    assert splitter.pending == splitter.pending == b"ab"
    assert splitter.feed(b"c\n") == [b"abc"]
    assert splitter.pending == b""


def test_many_lines_and_many_small_chunks_are_quick() -> None:
    began = time.perf_counter()
    assert len(LineSplitter(100).numbered(b"0123456789\n" * 500_000)) == 500_000
    splitter = LineSplitter(10**7)
    for _ in range(50_000):
        splitter.feed(b"x" * 100)
    assert len(splitter.feed(b"\n")[0]) == 5_000_000
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (b"[]", []),
        (b" [ ] ", []),
        (b"[1, 2 ,3]", [b"1\n", b"2\n", b"3\n"]),
        (b"[[1, 2], [3]]", [b"[1,2]\n", b"[3]\n"]),
        (b'{"a": [1, 2]}', [b'{"a":[1,2]}\n']),
        (b'[{"a": "x , ]"}, "\\""]', [b'{"a":"x , ]"}\n', b'"\\""\n']),
        (b"[1.10,1e400,123456789012345678901234567890]", [b"1.10\n", b"1e400\n", b"123456789012345678901234567890\n"]),
        (b"null", [b"null\n"]),
    ],
)
def test_an_array_is_taken_apart_by_one_level(body: bytes, records: list[bytes]) -> None:
    assert json_records(body) == records


@pytest.mark.parametrize(
    "body",
    [
        *(b"[1", b"[1,]", b"[,]", b"[1 2]", b"[1]]", b"[NaN]", b"", b"[", b"[1]x", b"[tr ue]"),
        *(b'["a" "b"]', b"[\xff]", b"[" * 300 + b"]" * 300),
    ],
)
def test_a_broken_array_gives_no_records(body: bytes) -> None:
    with pytest.raises(RecordError):
        json_records(body)


_VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)


@settings(max_examples=50, deadline=None)
@given(st.lists(_VALUES, max_size=4), st.sampled_from([None, 1]))
def test_the_records_of_an_array_are_its_elements(values: list[object], indent: int | None) -> None:
    assert [json.loads(record) for record in json_records(json.dumps(values, indent=indent).encode())] == values
