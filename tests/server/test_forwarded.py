"""Whose word about a request counts, and what it changes."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.server.forwarded import Forwarded
from penstock.server.settings import Settings, SettingsError
from penstock.server.trusted import TrustedProxies

FIELDS = {
    "x-forwarded-for": "203.0.113.9",
    "x-forwarded-proto": "https",
    "x-forwarded-host": "files.example.com:8443",
    "x-forwarded-prefix": "/store",
}


async def seen(
    fields: dict[str, str] | list[tuple[str, str]],
    *,
    client: str | None = "127.0.0.1",
    trusted: str = "127.0.0.1",
    root_path: str = "",
    kind: str = "http",
) -> dict[str, Any]:
    """Return the scope that an application is given."""
    found: dict[str, Any] = {}

    async def application(scope: Any, _receive: Any, _send: Any) -> None:
        found.update(scope)

    pairs = fields.items() if isinstance(fields, dict) else fields
    scope = {
        "type": kind,
        "scheme": "http" if kind == "http" else "ws",
        "path": "/files/ü",
        "raw_path": b"/files/%C3%BC",
        "root_path": "",
        "client": None if client is None else (client, 1234),
        "headers": [(b"host", b"inner"), *((name.encode(), value.encode()) for name, value in pairs)],
    }
    middleware = Forwarded(application, TrustedProxies.parse(trusted), root_path)
    await middleware(scope, None, None)  # type: ignore[arg-type]  # nobody receives or sends
    found["host"] = dict(found["headers"])[b"host"].decode()
    return found


async def test_a_trusted_proxy_is_believed() -> None:
    scope = await seen(FIELDS)
    assert scope["client"] == ("203.0.113.9", 0)
    assert (scope["scheme"], scope["host"]) == ("https", "files.example.com:8443")
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == (
        "/store",
        "/store/files/ü",
        b"/store/files/%C3%BC",
    )


async def test_websockets_have_schemes_of_their_own() -> None:
    for told in ("https", "wss"):
        assert (await seen({"x-forwarded-proto": told}, kind="websocket"))["scheme"] == "wss"
    assert (await seen({"x-forwarded-proto": "http"}, kind="websocket"))["scheme"] == "ws"


@pytest.mark.parametrize("client", ["127.0.0.2", "10.1.2.3", "::2", "nonsense"])
async def test_others_are_not_believed(client: str) -> None:
    scope = await seen(FIELDS, client=client, trusted="127.0.0.1, ::1, 10.2.0.0/16")
    assert scope["client"] == (client, 1234)
    assert (scope["scheme"], scope["host"], scope["root_path"], scope["path"]) == ("http", "inner", "", "/files/ü")


@pytest.mark.parametrize("client", ["127.0.0.1", "10.2.9.9", "::1", None])
async def test_networks_and_unix_sockets_can_be_trusted(client: str | None) -> None:
    assert (await seen(FIELDS, client=client, trusted="127.0.0.1, ::1, 10.2.0.0/16"))["scheme"] == "https"
    assert (await seen(FIELDS, client=client, trusted="*"))["scheme"] == "https"


async def test_what_a_client_sent_through_the_proxy_does_not_count() -> None:
    scope = await seen(
        [
            ("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.7"),
            ("x-forwarded-proto", "https, http"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-host", "files.example.com"),
        ],
        trusted="127.0.0.1,10.0.0.0/8",
    )
    assert (scope["client"], scope["scheme"], scope["host"]) == (("203.0.113.9", 0), "http", "files.example.com")


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("unknown", "127.0.0.1"),
        ("9.9.9.9, unknown", "127.0.0.1"),
        ("", "127.0.0.1"),
    ],
)
async def test_addresses_are_read(forwarded: str, expected: str) -> None:
    assert (await seen({"x-forwarded-for": forwarded}))["client"][0] == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"x-forwarded-proto": "javascript"},
        {"x-forwarded-host": "a/b"},
        {"x-forwarded-host": "user@host"},
        {"x-forwarded-prefix": "//evil.example"},
        {"x-forwarded-prefix": "store"},
        {"x-forwarded-prefix": "/a?b"},
        {"x-forwarded-prefix": "/"},
    ],
)
async def test_nonsense_is_not_believed(fields: dict[str, str]) -> None:
    scope = await seen(fields)
    assert (scope["scheme"], scope["host"], scope["root_path"], scope["path"]) == ("http", "inner", "", "/files/ü")


async def test_a_root_path_can_be_set() -> None:
    scope = await seen({}, root_path="/a b")
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/a b", "/a b/files/ü", b"/a%20b/files/%C3%BC")
    assert (await seen(FIELDS, root_path="/other"))["root_path"] == "/store"
    assert (await seen({"x-forwarded-prefix": "/a%20b/"}))["path"] == "/a b/files/ü"


@pytest.mark.parametrize(
    "variables",
    [
        {"PENSTOCK_FORWARDED_ALLOW_IPS": "localhost"},
        {"PENSTOCK_FORWARDED_ALLOW_IPS": "10.0.0.1/8"},
        {"PENSTOCK_ROOT_PATH": "store"},
        {"PENSTOCK_ROOT_PATH": "/store/"},
    ],
)
def test_settings_that_cannot_be_are_refused(variables: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=next(iter(variables))):
        Settings.from_environment(variables)


def test_settings_reach_worker_processes() -> None:
    settings = Settings(forwarded_allow_ips="*", root_path="/store")
    assert Settings.from_environment(settings.to_environment()) == settings
