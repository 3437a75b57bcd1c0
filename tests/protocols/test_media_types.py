"""Media types, as they are compared."""

from __future__ import annotations

import pytest

from penstock.protocols.media_types import essence


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/plain", "text/plain"),
        ("Text/Plain; charset=utf-8", "text/plain"),
        (" application/JSON ;profile=x", "application/json"),
        ("", ""),
    ],
)
def test_parameters_and_case_do_not_count(content_type: str, expected: str) -> None:
    assert essence(content_type) == expected
