import base64
import hashlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.protocols.digest import SUPPORTED, DigestError, format_digests, parse_digests, parse_want, preferred

BODY = b'{"hello": "world"}\n'  # the content of RFC 9530's examples
SHA256 = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
SHA512 = "sha-512=:YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCsyRZOtw8MjkM7iw7yZ/WkppmM44T3qg==:"


def digest(name: str) -> bytes:
    return hashlib.new(SUPPORTED[name], BODY).digest()


def test_the_examples_of_rfc_9530_are_read_and_written() -> None:
    assert parse_digests(SHA256) == {"sha-256": digest("sha-256")}
    both = parse_digests(f"{SHA256},{SHA512}")
    assert both == {"sha-256": digest("sha-256"), "sha-512": digest("sha-512")}
    assert format_digests(both) == f"{SHA256}, {SHA512}"


def test_unknown_algorithms_and_parameters_are_read_over() -> None:
    value = f' md5=:AAAA:;a;b=1;c="x\\"y";d=tok/en;e=?1;f=1.5;g=:AA==:;h=@1;i=%"f%c3%a9" \t,\t{SHA256}; q=-3 '
    assert parse_digests(value) == {"md5": b"\0\0\0", "sha-256": digest("sha-256")}


def test_the_last_of_a_repeated_algorithm_counts() -> None:
    assert parse_digests("x=:AAAA:, x=:AQEB:") == {"x": b"\1\1\1"}


def test_padding_may_be_missing() -> None:
    assert parse_digests(SHA256.replace("=:", ":").replace("sha-256:", "sha-256=:")) == parse_digests(SHA256)


def test_an_empty_field_has_no_digests() -> None:
    assert parse_digests("") == parse_digests("  ") == {}


@pytest.mark.parametrize(
    "value",
    [
        "sha-256",
        "sha-256=",
        "sha-256=abc",
        "sha-256=1",
        "sha-256=1.5",
        'sha-256="RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg="',
        "SHA-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:",
        "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=",
        "sha-256 =:AAAA:",
        "sha-256=RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=",
        "sha-256=::",
        "sha-256=:AAAA:",
        "sha-512=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:",
        "x=:A:",
        "x=:AA=A:",
        "x=:A A:",
        "x=:A-_A:",
        "x=(:AAAA:)",
        "x=:AAAA:,",
        "x=:AAAA:,,y=:AAAA:",
        "x=:AAAA: y=:AAAA:",
        ",x=:AAAA:",
        "x=:AAAA:;",
        "x=:AAAA:;A=1",
        "x=:AAAA:\n",
        "é=:AAAA:",
    ],
)
def test_malformed_fields_are_errors(value: str) -> None:
    with pytest.raises(DigestError):
        parse_digests(value)


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(DigestError, match="a sha-256 digest has 32 bytes, this one has 3"):
        parse_digests("sha-256=:AAAA:")


def test_hostile_fields_are_read_in_linear_time() -> None:
    began = time.perf_counter()
    hostile = (
        "a" * 500_000,
        "x=:" + "A" * 500_000,
        "x=:AAAA:" + ";a=1" * 100_000 + ";A",
        "x=:AAAA:" + " " * 500_000 + "x",
        'x=:AAAA:;a="' + "\\\\" * 250_000,
        "x=" + "9" * 500_000,
    )
    for value in hostile:
        with pytest.raises(DigestError):
            parse_digests(value)
    assert time.perf_counter() - began < 5


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"\Ax[a-z0-9_.*-]{0,10}\Z"), st.binary(max_size=80), max_size=5))
def test_digests_are_read_as_written(digests: dict[str, bytes]) -> None:
    assert parse_digests(format_digests(digests)) == digests


@pytest.mark.parametrize("name", ["", "SHA-256", "a=b", "a\r\nb", "1a", "é"])
def test_a_name_that_is_no_key_is_not_written(name: str) -> None:
    with pytest.raises(ValueError, match="digest algorithm"):
        format_digests({name: b""})


def test_wants_are_read() -> None:
    assert parse_want("sha-256=1") == {"sha-256": 1}
    assert parse_want("sha-512=3, sha-256=10, unixsum=0") == {"sha-512": 3, "sha-256": 10, "unixsum": 0}
    assert parse_want("sha-256=5;a=b") == {"sha-256": 5}
    assert parse_want("") == {}


@pytest.mark.parametrize("value", ["sha-256", "sha-256=11", "sha-256=-1", "sha-256=1.0", "sha-256=:AAAA:", "5"])
def test_malformed_wants_are_errors(value: str) -> None:
    with pytest.raises(DigestError):
        parse_want(value)


@pytest.mark.parametrize(
    ("want", "chosen"),
    [
        ({}, None),
        ({"sha-256": 0}, None),
        ({"md5": 10}, None),
        ({"sha-256": 1, "sha-512": 2}, "sha-512"),
        ({"sha-512": 3, "sha-256": 10, "unixsum": 0}, "sha-256"),
        ({"sha-512": 5, "sha-256": 5}, "sha-256"),
        ({"sha-256": 0, "sha-512": 1}, "sha-512"),
    ],
)
def test_the_heaviest_supported_algorithm_is_preferred(want: dict[str, int], chosen: str | None) -> None:
    assert preferred(want) == chosen


def test_only_what_is_supported_is_preferred() -> None:
    assert preferred({"sha-256": 10, "sha-512": 1}, ("sha-512",)) == "sha-512"
    assert preferred({"sha-256": 10}, ()) is None


def test_supported_names_are_hashlib_names() -> None:
    assert base64.b64encode(digest("sha-256")).decode() in SHA256
    assert base64.b64encode(digest("sha-512")).decode() in SHA512
