import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.protocols.problem import BASE, MEDIA_TYPE, Problem, slug_of, type_uri

# RFC 9457 section 3, figure 1
RFC_BODY = b"""{
 "type": "https://example.com/probs/out-of-credit",
 "title": "You do not have enough credit.",
 "detail": "Your current balance is 30, but that costs 50.",
 "instance": "/account/12345/msgs/abc",
 "balance": 30,
 "accounts": ["/account/12345",
              "/account/67890"]
}"""
RFC_PROBLEM = Problem(
    "https://example.com/probs/out-of-credit",
    "You do not have enough credit.",
    None,
    "Your current balance is 30, but that costs 50.",
    "/account/12345/msgs/abc",
    {"balance": 30, "accounts": ["/account/12345", "/account/67890"]},
)


def test_the_example_of_the_rfc_is_read_and_written() -> None:
    assert MEDIA_TYPE == "application/problem+json"
    assert Problem.from_bytes(RFC_BODY) == RFC_PROBLEM
    assert json.loads(RFC_PROBLEM.to_bytes()) == json.loads(RFC_BODY)


def test_types_are_made_of_slugs() -> None:
    assert type_uri("offset-mismatch") == "https://penstock.dev/problems/offset-mismatch"
    assert slug_of(type_uri("offset-mismatch")) == "offset-mismatch"
    assert slug_of("about:blank") is None
    assert slug_of(BASE) is None
    assert slug_of("offset-mismatch") is None


@pytest.mark.parametrize("slug", ["", "Not-Found", "not_found", "a--b", "-a", "a/b", "a b", "é", "a\n"])
def test_a_slug_is_words_and_hyphens(slug: str) -> None:
    with pytest.raises(ValueError, match="slug"):
        type_uri(slug)


def test_members_without_a_value_are_left_out() -> None:
    assert Problem().to_bytes() == b'{"type":"about:blank"}'
    problem = Problem(type_uri("gone"), "Gone", 410, "It is gone: é", "/x", {"offset": 5})
    assert (
        problem.to_bytes()
        == (
            '{"type":"https://penstock.dev/problems/gone","title":"Gone","status":410,'
            '"detail":"It is gone: é","instance":"/x","offset":5}'
        ).encode()
    )


@pytest.mark.parametrize("name", ["type", "title", "status", "detail", "instance"])
def test_extensions_cannot_replace_members(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Problem(extra={name: 1})


def test_a_lone_surrogate_is_escaped() -> None:
    body = Problem(detail="bad name: \udc80").to_bytes()
    assert b"\\udc80" in body
    assert Problem.from_bytes(body).detail == "bad name: \udc80"


def test_values_that_json_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        Problem(extra={"x": float("nan")}).to_bytes()
    with pytest.raises(TypeError):
        Problem(extra={"x": b""}).to_bytes()


def test_members_of_the_wrong_type_are_ignored() -> None:
    body = b'{"type": 5, "title": null, "status": "404", "detail": [], "instance": {}, "x": null}'
    assert Problem.from_bytes(body) == Problem(extra={"x": None})
    assert Problem.from_bytes(b'{"status": true}') == Problem()


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b"null", b"{", b"<html>", b"\xff\xfe\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match="not a problem document"):
        Problem.from_bytes(body)


@settings(deadline=None)
@given(
    st.builds(
        Problem,
        st.text(min_size=1),
        st.text(),
        st.integers(100, 599) | st.none(),
        st.text() | st.none(),
        st.text() | st.none(),
        st.dictionaries(st.text().map("x-".__add__), st.integers() | st.text() | st.none(), max_size=3),
    )
)
def test_problems_are_read_as_written(problem: Problem) -> None:
    assert Problem.from_bytes(problem.to_bytes()) == problem
