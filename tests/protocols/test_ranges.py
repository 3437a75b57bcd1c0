import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.protocols.ranges import (
    COALESCE_GAP,
    MAX_RANGES,
    OPEN_ENDED_LAST,
    ByteRange,
    RangeSpec,
    content_range,
    follows,
    parse_content_range,
    parse_range,
    resolve,
    unsatisfied,
)


def select(value: str, length: int) -> list[tuple[int, int]]:
    specs = parse_range(value)
    assert specs is not None
    return [(part.start, part.stop) for part in resolve(specs, length)]


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("bytes=0-499", [(0, 500)]),
        ("bytes=500-999", [(500, 1000)]),
        ("bytes=-500", [(9500, 10000)]),
        ("bytes=9500-", [(9500, 10000)]),
        ("bytes=0-0,-1", [(0, 1), (9999, 10000)]),
        ("bytes= 0-999, 4500-5499, -1000", [(0, 1000), (4500, 5500), (9000, 10000)]),
        ("bytes=500-600,601-999", [(500, 1000)]),
        ("bytes=500-700,601-999", [(500, 1000)]),
    ],
)
def test_the_examples_of_rfc_9110_select_what_it_says(value: str, parts: list[tuple[int, int]]) -> None:
    assert select(value, 10000) == parts


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes= , ,",
        "bytes=-",
        "bytes=5",
        "bytes=a-b",
        "bytes=0x0-0x5",
        "bytes=1-2-3",
        "bytes=--1",
        "bytes=+1-2",
        "bytes=1 -2",
        "bytes=1- 2",
        "bytes=10-9",
        "bytes=0-5,10-9",
        "bytes=0-5;6-7",
        "bytes =0-5",
        "bytes:0-5",
        "items=0-5",
        "bytes=\u0660-\u0669",
        "bytes=\u00b2-",
        "bytes=0-5\n",
        "bytes=0-5\0",
        "bytes=" + "9" * 5000 + "-",
        "bytes=0-" + "9" * 21,
        "bytes=-" + "9" * 21,
    ],
)
def test_other_units_and_malformed_values_are_ignored(value: str) -> None:
    assert parse_range(value) is None


def test_units_are_case_insensitive_and_lists_may_have_empty_elements() -> None:
    expected = (RangeSpec(0, 5), RangeSpec(None, 3), RangeSpec(9, None))
    assert parse_range(" BYTES=,,0-5 ,\t-3, ,9-,\t") == expected


def test_up_to_the_cap_ranges_are_read_and_beyond_it_ignored() -> None:
    at_cap = "bytes=" + ",".join(["0-0"] * MAX_RANGES)
    specs = parse_range(at_cap)
    assert specs is not None
    assert len(specs) == MAX_RANGES
    assert parse_range(at_cap + ",0-0") is None


def test_hostile_values_are_refused_in_linear_time() -> None:
    began = time.perf_counter()
    for value in ("bytes=" + "," * 1_000_000, "bytes=" + " " * 1_000_000 + "x", "bytes=" + "0-," * 300_000):
        assert parse_range(value) is None
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("value", ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=100-,-0,5000-5001"])
def test_nothing_satisfiable_selects_nothing(value: str) -> None:
    assert select(value, 100) == []


@pytest.mark.parametrize("value", ["bytes=0-", "bytes=0-0", "bytes=-5", "bytes=-0"])
def test_an_empty_representation_has_no_ranges(value: str) -> None:
    assert select(value, 0) == []


def test_satisfiable_ranges_are_clamped_and_the_others_dropped() -> None:
    assert select("bytes=500-600,90-99999999999999999999,-0", 100) == [(90, 100)]
    assert select("bytes=-99999999999999999999", 100) == [(0, 100)]


def test_near_ranges_become_one_and_far_ones_stay_two() -> None:
    near, far = 10 + COALESCE_GAP - 1, 10 + COALESCE_GAP
    assert select(f"bytes=0-9,{near}-{near}", 1000) == [(0, near + 1)]
    assert select(f"bytes=0-9,{far}-{far}", 1000) == [(0, 10), (far, far + 1)]


def test_the_order_of_the_request_is_kept() -> None:
    assert select("bytes=900-,500-509,0-9", 1000) == [(900, 1000), (500, 510), (0, 10)]
    # The range at 500 is joined to the first one asked for, and so comes first.
    assert select("bytes=505-514,0-9,500-509", 1000) == [(500, 515), (0, 10)]


specs_strategy = st.lists(
    st.one_of(
        st.builds(RangeSpec, st.none(), st.integers(0, 1500)),
        st.builds(RangeSpec, st.integers(0, 1500), st.none()),
        st.tuples(st.integers(0, 1500), st.integers(0, 300)).map(lambda t: RangeSpec(t[0], t[0] + t[1])),
    ),
    min_size=1,
    max_size=12,
)


def written(spec: RangeSpec) -> str:
    return f"{'' if spec.first is None else spec.first}-{'' if spec.last is None else spec.last}"


@settings(deadline=None)
@given(specs_strategy, st.sampled_from([",", ", ", " ,\t", ",,"]))
def test_what_a_client_writes_is_read(specs: list[RangeSpec], comma: str) -> None:
    assert parse_range("bytes=" + comma.join(map(written, specs))) == tuple(specs)


@settings(deadline=None)
@given(specs_strategy, st.integers(0, 1200))
def test_ranges_agree_with_a_naive_model(specs: list[RangeSpec], length: int) -> None:
    everything = list(range(length))

    def naive(spec: RangeSpec) -> list[int]:
        if spec.first is None:
            return everything[-spec.last :] if spec.last else []
        return everything[spec.first : None if spec.last is None else spec.last + 1]

    wanted = [naive(spec) for spec in specs]
    parts = resolve(specs, length)
    sent = [list(range(part.start, part.stop)) for part in parts]
    assert all(part and part[-1] < length for part in sent)
    # Every byte asked for is sent, none twice, and more only to close small gaps.
    flat = [position for part in sent for position in part]
    assert len(flat) == len(set(flat))
    asked = set().union(*wanted)
    assert asked <= set(flat)
    assert bool(asked) == bool(parts)
    for part in sent:
        assert {part[0], part[-1]} <= asked
        inside = sorted(asked & set(part))
        assert all(after - before - 1 < COALESCE_GAP for before, after in pairwise(inside))
    ordered = sorted(parts, key=lambda part: part.start)
    assert all(b.start - a.stop >= COALESCE_GAP for a, b in pairwise(ordered))
    # Parts stand in the order in which the first byte of any of theirs was asked for.
    first_asked = [min(i for i, want in enumerate(wanted) if want and want[0] in part) for part in sent]
    assert first_asked == sorted(first_asked)


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (5, 5), (6, 5), (-1, 5)])
def test_a_byte_range_is_never_empty_or_negative(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="not a byte range"):
        ByteRange(start, stop)


def test_the_length_of_a_range_is_its_number_of_bytes() -> None:
    assert len(ByteRange(5, 8)) == 3


def test_content_range_is_written_as_the_rfc_does() -> None:
    assert content_range(ByteRange(42, 1234), 1234) == "bytes 42-1233/1234"
    assert content_range(ByteRange(42, 1234), None) == "bytes 42-1233/*"
    assert unsatisfied(1234) == "bytes */1234"


def test_a_part_past_the_complete_length_is_not_written() -> None:
    with pytest.raises(ValueError, match="past the complete length"):
        content_range(ByteRange(0, 11), 10)


@pytest.mark.parametrize(
    ("value", "part", "complete"),
    [
        ("bytes 42-1233/1234", ByteRange(42, 1234), 1234),
        ("bytes 42-1233/*", ByteRange(42, 1234), None),
        ("bytes */1234", None, 1234),
        ("Bytes 0-0/1", ByteRange(0, 1), 1),
    ],
)
def test_content_range_is_read(value: str, part: ByteRange | None, complete: int | None) -> None:
    assert parse_content_range(value) == (part, complete)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bytes",
        "bytes */*",
        "bytes 0-9",
        "bytes=0-9/10",
        "bytes 9-0/10",
        "bytes 0-9/9",
        "bytes 0 - 9/10",
        "bytes -9/10",
        "items 0-9/10",
        "bytes 0-9/10\n",
        "byte\u017f 0-9/10",
        "bytes 0-" + "9" * 5000 + "/*",
    ],
)
def test_an_invalid_content_range_is_an_error(value: str) -> None:
    with pytest.raises(ValueError, match=r"Content-Range|byte range"):
        parse_content_range(value)


def test_a_very_large_last_position_follows_an_open_stream() -> None:
    assert OPEN_ENDED_LAST == 9007199254740991
    specs = parse_range("bytes=1230000-9007199254740991")
    assert specs is not None
    assert follows(specs)
    assert content_range(ByteRange(1230000, OPEN_ENDED_LAST + 1), None) == "bytes 1230000-9007199254740991/*"


@pytest.mark.parametrize(
    "value",
    [
        "bytes=0-",
        "bytes=0-9007199254740990",
        "bytes=-9007199254740991",
        "bytes=0-9007199254740991,5-6",
    ],
)
def test_other_ranges_do_not_follow(value: str) -> None:
    specs = parse_range(value)
    assert specs is not None
    assert not follows(specs)
