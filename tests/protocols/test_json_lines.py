"""Many records at once come to the same as each by itself."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.protocols.json_lines import BadLineError, Lines, json_lines, text_lines
from penstock.protocols.records import RecordError, compact, json_record, text_record


@pytest.fixture(params=["msgspec", "pydantic"])
def checker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the ways in which lines are checked."""
    if request.param == "pydantic":
        monkeypatch.setattr("penstock.protocols.json_lines.Decoder", None)


PIECES = ["[", "]", "{", "}", '"', "1", "-0.5", ",", ":", "a", "\\", " ", "\r", "\n", "null", '\\"', "\\\\", '"x"', "é"]


@pytest.mark.usefixtures("checker")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # it is the same for all examples
@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_lines_are_records_exactly_if_each_is_one(text: str) -> None:
    data = text.encode()
    expected: list[bytes] = []
    try:
        expected.extend(json_record(line) for line in data.split(b"\n") if line.strip())
    except RecordError:
        with pytest.raises(BadLineError) as caught:
            json_lines(data)
        assert caught.value.before == Lines(b"".join(expected), len(expected))
        return
    assert json_lines(data) == Lines(b"".join(expected), len(expected))


@pytest.mark.usefixtures("checker")
@pytest.mark.parametrize(
    "data", [b"[1\n2],3", b"[1\n2]", b"1,2", b'"a\nb"', b'{"a":1\n"b":2}', b"1\n,2\n", b"1 2", b"NaN"]
)
def test_what_is_json_only_together_is_refused(data: bytes) -> None:
    with pytest.raises(BadLineError):
        json_lines(data)


@pytest.mark.usefixtures("checker")
def test_an_error_tells_its_line_and_keeps_what_was_before_it() -> None:
    with pytest.raises(BadLineError, match="line 3 of these: not valid JSON") as caught:
        json_lines(b'{"a": 1}\n\n2\n{"b"\n4\n')
    assert (caught.value.before, caught.value.size) == (Lines(b'{"a":1}\n2\n', 2), 12)


@pytest.mark.usefixtures("checker")
@pytest.mark.parametrize("text", ["1e400", "1" * 5000, '"\\ud800"', "[" * 250 + "]" * 250, '{"a":1,"a":2}', "-0.0"])
def test_what_the_fast_way_cannot_take_is_taken_all_the_same(text: str) -> None:
    assert json_lines(f"{text}\n1\n".encode()) == Lines(f"{text}\n1\n".encode(), 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(value=JSON, indent=st.sampled_from([None, 1, "\t"]))
def test_compact_json_means_the_same_and_has_no_space_between_tokens(value: object, indent: int | str | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    shortest = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    assert compact(text.encode(errors="surrogatepass")).decode(errors="surrogatepass") == shortest


@given(st.lists(st.text("ab\r\0é", max_size=4)).map("\n".join), st.sampled_from(["utf-8", "latin-1", "iso-8859-1"]))
def test_lines_of_text_are_records_exactly_if_each_is_one(text: str, charset: str) -> None:
    data = text.encode("latin-1" if "1" in charset else "utf-8")
    lines = data.removesuffix(b"\n").split(b"\n") if data else []
    expected: list[bytes] = []
    try:
        expected.extend(text_record(line + b"\n", charset) for line in lines)
    except RecordError:
        with pytest.raises(BadLineError):
            text_lines(data, charset)
        return
    assert text_lines(data, charset) == Lines(b"".join(expected), len(expected))


def test_records_can_be_left_out_from_the_start() -> None:
    lines = Lines(b"1\n22\n333\n", 3)
    assert [lines.after(skipped) for skipped in range(4)] == [b"1\n22\n333\n", b"22\n333\n", b"333\n", b""]
