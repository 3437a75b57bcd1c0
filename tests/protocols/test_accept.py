"""Which media type a client likes best."""

from __future__ import annotations

import pytest

from penstock.protocols.accept import preferred_type

JSON, HTML = "application/json", "text/html"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        (BROWSER, HTML),
        ("text/html", HTML),
        ("TEXT/HTML", HTML),
        ("text/*", HTML),
        ("text/*;q=0.5, application/json;q=0.4", HTML),
        ("text/*;q=0.5, application/json;q=0.6", JSON),
        ("text/html;q=0, */*", JSON),
        ("*/*;q=1, application/json;q=0.1", HTML),
        ("application/*;q=0.2, */*;q=0.3", HTML),
        ("application/json , text/html", JSON),
        ("text/html;level=1, application/json;q=0.1", JSON),
        ("text/html; q=0.9; ext=1, application/json;q=0.8", HTML),
        ("text/html;q=high, application/json;q=0.1", JSON),
        ("image/png", JSON),
        ("nonsense", JSON),
    ],
)
def test_the_best_of_two_is_found(accepted: str | None, expected: str) -> None:
    assert preferred_type(accepted, (JSON, HTML)) == expected


def test_equals_go_by_the_servers_order() -> None:
    assert preferred_type("*/*", (HTML, JSON)) == HTML
