import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.protocols.conditional import ETag, ETagList, Preconditions, Verdict, evaluate, if_range_allows

CURRENT = ETag("xyzzy")
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
MOMENT = 784111777.0
PROCEED, NOT_MODIFIED, FAILED = Verdict.PROCEED, Verdict.NOT_MODIFIED, Verdict.FAILED


def verdict(
    headers: dict[str, str],
    method: str = "GET",
    etag: ETag | None = CURRENT,
    last_modified: float | None = MOMENT,
) -> Verdict:
    preconditions = Preconditions.from_headers(headers)
    return evaluate(preconditions, method=method, etag=etag, last_modified=last_modified)


@pytest.mark.parametrize(
    ("one", "other", "strong", "weak"),
    [
        ('W/"1"', 'W/"1"', False, True),
        ('W/"1"', 'W/"2"', False, False),
        ('W/"1"', '"1"', False, True),
        ('"1"', '"1"', True, True),
    ],
)
def test_tags_compare_as_in_the_rfc_table(one: str, other: str, strong: bool, weak: bool) -> None:
    a, b = ETag.parse(one), ETag.parse(other)
    assert a is not None
    assert b is not None
    assert (a.matches_strongly(b), a.matches_weakly(b)) == (strong, weak)
    assert (b.matches_strongly(a), b.matches_weakly(a)) == (strong, weak)
    assert (str(a), str(b)) == (one, other)


@pytest.mark.parametrize("value", ["a b", 'a"b', "a\r\nSet-Cookie: x", "\x7f", "\0", "€"])
def test_a_tag_cannot_hold_what_a_header_cannot(value: str) -> None:
    with pytest.raises(ValueError, match="entity tag"):
        ETag(value)


@pytest.mark.parametrize("value", ["", "abc", '"abc', 'w/"abc"', 'W/ "abc"', '"a" "b"', '"a","b"', "*", '"a"\n'])
def test_a_malformed_tag_is_none(value: str) -> None:
    assert ETag.parse(value) is None


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        ('"xyzzy"', ["xyzzy"]),
        ('"xyzzy", "r2d2xxxx", "c3piozzzz"', ["xyzzy", "r2d2xxxx", "c3piozzzz"]),
        ('"a,b" ,,\t"",', ["a,b", ""]),
        ('"*"', ["*"]),
        ('"\\"', ["\\"]),
        ('"\xe9"', ["\xe9"]),
        ("", []),
        (" , ,", []),
    ],
)
def test_lists_of_tags_are_read(value: str, tags: list[str]) -> None:
    assert ETagList.parse(value) == ETagList(tuple(map(ETag, tags)))


def test_weak_tags_are_marked() -> None:
    expected = ETagList((ETag("xyzzy", weak=True), ETag("r2d2xxxx", weak=True)))
    assert ETagList.parse('W/"xyzzy", W/"r2d2xxxx"') == expected


@pytest.mark.parametrize("value", ["xyzzy", '"a" "b"', '"a", b', '"a', '*, "a"', "**", 'w/"a"', '"a";', '"a\n"'])
def test_a_malformed_list_is_marked_and_holds_no_tag(value: str) -> None:
    assert ETagList.parse(value) == ETagList(malformed=True)


def test_hostile_lists_are_read_in_linear_time() -> None:
    began = time.perf_counter()
    for value in (" " * 500_000 + "x", '"a' * 300_000, "," * 500_000 + "x", '"a",' * 200_000 + "x"):
        assert ETagList.parse(value).malformed
    assert time.perf_counter() - began < 5


@settings(deadline=None)
@given(
    st.lists(st.builds(ETag, st.from_regex(r"[\x21\x23-\x7e\x80-\xff]*", fullmatch=True), st.booleans())),
    st.sampled_from([",", ", ", " ,\t", ",,"]),
)
def test_lists_are_read_as_written(tags: list[ETag], comma: str) -> None:
    assert ETagList.parse(comma.join(map(str, tags))) == ETagList(tuple(tags))


@pytest.mark.parametrize(
    ("value", "etag", "expected"),
    [
        ('"xyzzy"', CURRENT, PROCEED),
        ('"a", "xyzzy"', CURRENT, PROCEED),
        ("*", CURRENT, PROCEED),
        ('"a"', CURRENT, FAILED),
        ('W/"xyzzy"', CURRENT, FAILED),  # strong comparison
        ('"xyzzy"', ETag("xyzzy", weak=True), FAILED),
        ("*", None, FAILED),
        ('"xyzzy"', None, FAILED),
        ("", CURRENT, FAILED),
        ('xyzzy, "xyzzy"', CURRENT, FAILED),  # malformed
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"])
def test_if_match(value: str, etag: ETag | None, expected: Verdict, method: str) -> None:
    assert verdict({"if-match": value}, method, etag) is expected


@pytest.mark.parametrize(
    ("value", "etag", "matches"),
    [
        ('"xyzzy"', CURRENT, True),
        ('W/"xyzzy"', CURRENT, True),  # weak comparison
        ('"xyzzy"', ETag("xyzzy", weak=True), True),
        ('"a", "xyzzy"', CURRENT, True),
        ("*", CURRENT, True),
        ("*", None, False),
        ('"xyzzy"', None, False),
        ('"a"', CURRENT, False),
        ("", CURRENT, False),
    ],
)
def test_if_none_match(value: str, etag: ETag | None, matches: bool) -> None:
    for method in ("GET", "HEAD"):
        assert verdict({"if-none-match": value}, method, etag) is (NOT_MODIFIED if matches else PROCEED)
    for method in ("PUT", "PATCH", "POST", "DELETE"):
        assert verdict({"if-none-match": value}, method, etag) is (FAILED if matches else PROCEED)


@pytest.mark.parametrize("etag", [CURRENT, None])
def test_a_malformed_if_none_match_sends_everything_and_changes_nothing(etag: ETag | None) -> None:
    headers = {"if-none-match": 'xyzzy, "xyzzy"', "if-modified-since": DATE}
    assert verdict(headers, "GET", etag) is PROCEED
    assert verdict(headers, "PUT", etag) is FAILED


@pytest.mark.parametrize(
    ("last_modified", "expected"),
    [
        (MOMENT - 1, PROCEED),
        (MOMENT, PROCEED),
        (MOMENT + 0.9, PROCEED),
        (MOMENT + 1, FAILED),
        (None, PROCEED),
    ],
)
def test_if_unmodified_since(last_modified: float | None, expected: Verdict) -> None:
    for method in ("GET", "PUT"):
        assert verdict({"if-unmodified-since": DATE}, method, last_modified=last_modified) is expected


@pytest.mark.parametrize(
    ("last_modified", "expected"),
    [
        (MOMENT - 1, NOT_MODIFIED),
        (MOMENT, NOT_MODIFIED),
        (MOMENT + 0.9, NOT_MODIFIED),
        (MOMENT + 1, PROCEED),
        (None, PROCEED),
    ],
)
def test_if_modified_since(last_modified: float | None, expected: Verdict) -> None:
    for method in ("GET", "HEAD"):
        assert verdict({"if-modified-since": DATE}, method, last_modified=last_modified) is expected
    assert verdict({"if-modified-since": DATE}, "PUT", last_modified=last_modified) is PROCEED


@pytest.mark.parametrize("name", ["if-modified-since", "if-unmodified-since"])
def test_conditions_on_dates_are_ignored_without_a_date_or_a_representation(name: str) -> None:
    assert verdict({name: "yesterday"}, last_modified=MOMENT + 5) is PROCEED
    assert verdict({name: "yesterday"}, last_modified=MOMENT - 5) is PROCEED
    assert verdict({name: DATE}, etag=None, last_modified=MOMENT + 5) is PROCEED
    assert verdict({name: DATE}, etag=None, last_modified=MOMENT - 5) is PROCEED


def test_tags_take_precedence_over_dates() -> None:
    later = MOMENT + 10
    assert verdict({"if-match": '"xyzzy"', "if-unmodified-since": DATE}, "PUT", last_modified=later) is PROCEED
    assert verdict({"if-none-match": '"a"', "if-modified-since": DATE}, last_modified=MOMENT) is PROCEED
    assert verdict({"if-none-match": '"xyzzy"', "if-modified-since": DATE}, last_modified=later) is NOT_MODIFIED


def test_a_failed_condition_takes_precedence_over_not_modified() -> None:
    assert verdict({"if-match": '"a"', "if-none-match": '"xyzzy"'}) is FAILED
    assert verdict({"if-match": '"xyzzy"', "if-none-match": '"xyzzy"'}) is NOT_MODIFIED
    headers = {"if-unmodified-since": DATE, "if-none-match": '"xyzzy"'}
    assert verdict(headers, last_modified=MOMENT + 1) is FAILED
    assert verdict(headers, last_modified=MOMENT) is NOT_MODIFIED


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "CONNECT"])
def test_methods_that_select_nothing_ignore_conditions(method: str) -> None:
    assert verdict({"if-match": '"a"', "if-none-match": "*"}, method) is PROCEED


def test_a_request_without_conditions_proceeds() -> None:
    assert verdict({}) is PROCEED
    assert not Preconditions.from_headers({"range": "bytes=0-"})
    assert Preconditions.from_headers({"if-match": "*"})


@pytest.mark.parametrize(
    ("value", "etag", "allowed"),
    [
        (None, CURRENT, True),
        (None, None, True),
        ('"xyzzy"', CURRENT, True),
        (' "xyzzy" ', CURRENT, True),
        ('"a"', CURRENT, False),
        ('W/"xyzzy"', CURRENT, False),
        ('"xyzzy"', ETag("xyzzy", weak=True), False),
        ('W/"xyzzy"', ETag("xyzzy", weak=True), False),
        ('"xyzzy"', None, False),
        (DATE, CURRENT, False),
        ("xyzzy", CURRENT, False),
        ('"xyzzy", "a"', CURRENT, False),
        ("*", CURRENT, False),
        ("", CURRENT, False),
    ],
)
def test_if_range_needs_the_same_strong_tag(value: str | None, etag: ETag | None, allowed: bool) -> None:
    assert if_range_allows(value, etag) is allowed
