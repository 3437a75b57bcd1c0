from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.protocols import subscriptions as protocol
from penstock.protocols.durable import offset
from penstock.protocols.subscriptions import SubscriptionRequestError, TokenError


def body(**members: Any) -> bytes:
    return json.dumps(members).encode()


def test_a_subscription_is_read() -> None:
    read = protocol.read_created(
        body(type="webhook", pattern="/events/*/", streams=["b", "/a/", "b"], webhook={"url": "https://w.example/h"})
    )
    assert (read.webhook, read.wake_stream, read.lease) == ("https://w.example/h", None, 30.0)
    assert (read.pattern, read.streams, read.description) == ("events/*", ("a", "b"), None)
    read = protocol.read_created(body(type="pull-wake", streams=["a"], wake_stream="wake/pool", lease_ttl_ms=1000))
    assert (read.webhook, read.wake_stream, read.lease) == (None, "wake/pool", 1.0)


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"[]",
        b"[" * 100_000,
        body(type="push", pattern="a"),
        body(type="webhook", pattern="a"),
        body(type="webhook", pattern="a", webhook="https://w.example"),
        body(type="webhook", pattern=1, webhook={"url": "https://w.example"}),
        body(type="pull-wake", pattern="a"),
        body(type="pull-wake", wake_stream="w"),
        body(type="pull-wake", wake_stream="w", streams=[]),
        body(type="pull-wake", wake_stream="w", streams=[1]),
        body(type="pull-wake", wake_stream="w", streams="a"),
        body(type="pull-wake", wake_stream="w", pattern="a", lease_ttl_ms=999),
        body(type="pull-wake", wake_stream="w", pattern="a", lease_ttl_ms=600_001),
        body(type="pull-wake", wake_stream="w", pattern="a", lease_ttl_ms=True),
        body(type="pull-wake", wake_stream="w", pattern="a", description=1),
    ],
)
def test_what_is_no_subscription_is_refused(raw: bytes) -> None:
    with pytest.raises(SubscriptionRequestError) as caught:
        protocol.read_created(raw)
    assert (caught.value.code, caught.value.status) == ("INVALID_REQUEST", 400)


def test_an_acknowledgement_is_read() -> None:
    acks = [{"stream": "a", "offset": offset(5)}, {"path": "/b", "offset": offset(0)}]
    read = protocol.read_acknowledgement(body(wake_id="w", generation=3, acks=acks, done=True))
    assert (read.wake, read.generation, read.acks, read.done) == ("w", 3, {"a": 5, "b": 0}, True)
    assert not protocol.read_acknowledgement(body(wake_id="w", generation=3)).done
    for bad in ("-1", "now", "7", 7, None):
        with pytest.raises(SubscriptionRequestError):
            protocol.read_acknowledgement(body(wake_id="w", generation=3, acks=[{"stream": "a", "offset": bad}]))


@pytest.mark.parametrize(
    "url", ["https://worker.example/hooks?x=1", "https://8.8.8.8/", "https://[2606:4700::1111]:8443/"]
)
def test_a_public_webhook_is_told(url: str) -> None:
    protocol.check_webhook(url, local=False)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://worker.example/",
            "ftp://worker.example/",
            "https://",
            "worker.example",
            "https://user@worker.example/",
        ),
        *(
            "https://localhost/",
            "https://a.localhost/",
            "https://127.0.0.1/",
            "https://10.1.2.3/",
            "https://172.16.0.1/",
        ),
        *("https://192.168.1.1/", "https://169.254.169.254/latest", "https://0.0.0.0/", "https://[::1]/"),
        *("https://[::ffff:10.0.0.1]/", "https://[fe80::1]/", "https://[fd00::1]/", "https://224.0.0.1/"),
        *("https://100.64.0.1/", "https://[", "https://worker.example:x/", "https://worker.example\\@10.0.0.1/"),
        *("http://10.0.0.1/", "http://0.0.0.0/", "http://[::1]/", "http://localhost.example/", "https://a b/"),
    ],
)
@pytest.mark.parametrize("local", [False, True])
def test_no_other_webhook_is_told(url: str, local: bool) -> None:
    with pytest.raises(SubscriptionRequestError) as caught:
        protocol.check_webhook(url, local=local)
    assert caught.value.code == "WEBHOOK_URL_REJECTED"


@pytest.mark.parametrize("url", ["http://localhost:8000/h", "http://127.0.0.1/h", "http://127.1.2.3:9/h"])
def test_a_webhook_of_this_machine_is_told_where_that_is_allowed(url: str) -> None:
    protocol.check_webhook(url, local=True)
    with pytest.raises(SubscriptionRequestError):
        protocol.check_webhook(url, local=False)


def test_a_token_is_for_one_wake_and_one_hour() -> None:
    key, now = b"k" * 32, 1_700_000_000.0
    token = protocol.token(key, "s", 7, now)
    assert protocol.token_generation(key, f"Bearer {token}", "s", now) == 7
    assert protocol.token_generation(key, f"bearer  {token}", "s", now + 3599) == 7
    for field, subscription, later in (
        (None, "s", 0),
        (token, "s", 0),
        (f"Basic {token}", "s", 0),
        (f"Bearer {token}x", "s", 0),
        ("Bearer x", "s", 0),
        ("Bearer .", "s", 0),
        (f"Bearer {token}", "other", 0),
        (f"Bearer {token}", "s", 3602),
    ):
        with pytest.raises(TokenError) as caught:
            protocol.token_generation(key, field, subscription, now + later)
        assert caught.value.code == ("TOKEN_EXPIRED" if later else "TOKEN_INVALID")
    with pytest.raises(TokenError):
        protocol.token_generation(b"other" * 8, f"Bearer {token}", "s", now)


def test_the_key_is_the_example_of_the_standard() -> None:
    # RFC 8037, appendix A.2 and A.3
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    assert protocol.jwk(public)["x"] == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    assert protocol.key_id(public) == "ds_kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
