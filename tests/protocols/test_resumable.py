"""The fields of resumable uploads, in all versions of the draft."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.protocols.problem import slug_of, type_uri
from penstock.protocols.resumable import (
    InconsistentLength,
    Limits,
    UploadRequest,
    dialect_of,
    final_fields,
    interim_fields,
    total_length,
)

VERSIONS = (3, 4, 5, 6, 7, 8)
SIZES = st.integers(0, 10**15 - 1)


def request(**fields: str) -> UploadRequest:
    return UploadRequest.from_headers({name.replace("_", "-"): value for name, value in fields.items()})


def of_version(version: int, **fields: str) -> UploadRequest:
    return request(upload_draft_interop_version=str(version), **fields)


@pytest.mark.parametrize("version", [4, 5, 6, 7, 8])
def test_completeness_is_told_by_upload_complete(version: int) -> None:
    assert of_version(version, upload_complete="?1").complete is True
    assert of_version(version, upload_complete="?0").complete is False
    assert of_version(version, upload_incomplete="?0").complete is None


def test_in_version_3_it_is_told_by_the_opposite() -> None:
    assert of_version(3, upload_incomplete="?1").complete is False
    assert of_version(3, upload_incomplete="?0").complete is True
    assert of_version(3, upload_complete="?1").complete is None
    assert of_version(3).completes is True


def test_what_an_append_means_that_does_not_say_whether_it_is_the_last() -> None:
    assert [of_version(version).completes for version in VERSIONS] == [True, False, False, False, None, None]
    assert request().completes is None


@pytest.mark.parametrize("value", ["", "1", "true", "?2", "?1?0", "?1, ?1", '"?1"', "(?1)"])
def test_a_malformed_completeness_counts_as_none(value: str) -> None:
    assert request(upload_complete=value).complete is None


def test_parameters_are_read_over() -> None:
    assert request(upload_complete="?1;some=thing").complete is True
    assert request(upload_offset="12; x").offset == 12


@pytest.mark.parametrize("value", ["", "-1", "1.0", "x", "1, 1", "1" * 16, "?1"])
def test_malformed_numbers_count_as_none(value: str) -> None:
    found = request(upload_offset=value, upload_length=value)
    assert (found.offset, found.length, found.transfers) == (None, None, False)


@given(SIZES, SIZES)
def test_numbers_are_read(offset: int, length: int) -> None:
    found = request(upload_offset=str(offset), upload_length=str(length))
    assert (found.offset, found.length, found.transfers) == (offset, length, True)


@pytest.mark.parametrize("value", ["2", "9", "-1", "x", "8.0", ""])
def test_a_version_that_is_not_known_is_taken_like_none(value: str) -> None:
    dialect = dialect_of({"upload-draft-interop-version": value})
    assert dialect == dialect_of({})
    assert not dialect.answers_early


# -- the length -------------------------------------------------------------------------------------------------------


def test_the_length_is_what_is_said_or_where_the_last_content_ends() -> None:
    last, part = request(upload_complete="?1"), request(upload_complete="?0")
    assert total_length(last, offset=10, content=5) == 15
    assert total_length(part, offset=10, content=5) is None
    assert total_length(last, offset=10, content=None) is None
    assert total_length(last, offset=10, content=None, known=20) == 20
    assert total_length(part, offset=10, content=5, known=20) == 20
    assert total_length(request(upload_complete="?0", upload_length="20"), offset=0, content=5) == 20
    assert total_length(request(upload_complete="?1", upload_length="15"), offset=10, content=5, known=15) == 15


@pytest.mark.parametrize(
    ("complete", "length", "known"), [("?1", "16", None), ("?1", None, 14), ("?0", "16", 15), ("?0", None, 14)]
)
def test_lengths_that_contradict_each_other_are_refused(complete: str, length: str | None, known: int | None) -> None:
    fields = {"upload_complete": complete} | ({} if length is None else {"upload_length": length})
    with pytest.raises(InconsistentLength):
        total_length(request(**fields), offset=10, content=5, known=known)


# -- limits -----------------------------------------------------------------------------------------------------------


def test_limits_are_written_and_read() -> None:
    limits = Limits(max_size=10**12, min_size=0, max_append_size=5, min_append_size=1, max_age=60)
    value = "max-size=1000000000000, min-size=0, max-append-size=5, min-append-size=1, max-age=60"
    assert limits.format() == value
    assert Limits.parse(value) == limits
    assert Limits.parse("max-size=1;x=2, other=(a b), more") == Limits(max_size=1)


def test_without_a_limit_the_field_is_not_empty() -> None:
    assert Limits().format() == "min-size=0"


@pytest.mark.parametrize("value", ["max-size=a", "max-size", "max-size=-1", "max-size=?0", "max-size=1,", "=", "A=1"])
def test_limits_of_another_type_make_the_field_void(value: str) -> None:
    assert Limits.parse(value) is None


def test_the_lifetime_had_another_name_once() -> None:
    six = dialect_of({"upload-draft-interop-version": "6"})
    assert Limits(max_age=60).format(six) == "expires=60"
    assert Limits.parse("expires=60", six) == Limits(max_age=60)


# -- responses --------------------------------------------------------------------------------------------------------


def test_the_fields_of_a_final_response() -> None:
    limits = Limits(max_size=9)
    assert final_fields(dialect_of({}), complete=False, offset=5, length=7, limits=limits) == {
        "upload-complete": "?0",
        "upload-offset": "5",
        "upload-length": "7",
        "upload-limit": "max-size=9",
    }
    assert final_fields(of_version(8).dialect, complete=True) == {"upload-complete": "?1"}
    assert final_fields(of_version(3).dialect, complete=True) == {"upload-incomplete": "?0"}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_fields_of_an_interim_response(version: int) -> None:
    dialect = of_version(version).dialect
    announced = interim_fields(dialect, location="/files/x?upload=1", limits=Limits())
    assert announced == {
        "upload-draft-interop-version": str(version),
        "location": "/files/x?upload=1",
        "upload-limit": "min-size=0",
    }
    assert interim_fields(dialect, offset=7) == {"upload-draft-interop-version": str(version), "upload-offset": "7"}


def test_no_interim_response_to_a_client_without_a_version() -> None:
    with pytest.raises(ValueError, match="version"):
        interim_fields(dialect_of({}), offset=7)


# -- problems ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", ["mismatching-upload-offset", "inconsistent-upload-length", "completed-upload"])
def test_the_problem_types_are_those_of_the_registry(slug: str) -> None:
    assert type_uri(slug) == f"https://iana.org/assignments/http-problem-types#{slug}"
    assert slug_of(type_uri(slug)) == slug
    assert slug_of(f"https://penstock.dev/problems/{slug}") is None
