"""What can be set about uploads, by options and by variables."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fastapi import FastAPI, Request

from applications import serving
from penstock.server.settings import Settings, SettingsError
from servers import Server
from wire import request

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TUS = {"tus-resumable": "1.0.0", "upload-length": "3"}


def test_origins_are_a_list_with_commas() -> None:
    assert Settings(cors=" https://a.example , https://b.example,").origins == (
        "https://a.example",
        "https://b.example",
    )
    assert Settings().origins == ()


def test_a_webhook_needs_its_secret_which_is_not_shown() -> None:
    with pytest.raises(SettingsError, match="PENSTOCK_WEBHOOK_SECRET"):
        Settings(webhook_url="https://example.com")
    settings = Settings(webhook_url="https://example.com", webhook_secret=SECRET)
    assert SECRET not in repr(settings)
    assert Settings.from_environment(settings.to_environment()) == settings


async def test_the_server_as_it_was_set(tmp_path: Path) -> None:
    heard: list[str] = []
    app = FastAPI()

    @app.post("/hook")
    async def hook(request: Request) -> dict[str, object]:
        message = await request.json()
        heard.append(message["type"])
        return {"name": "renamed"}

    async with serving(app) as port:
        options = ("--upload-expiry", "60", "--cors", "https://a.example", "--max-size", "10")
        server = Server(
            tmp_path / "data",
            *options,
            "--webhook-url",
            f"http://127.0.0.1:{port}/hook",
            environment={"PENSTOCK_WEBHOOK_SECRET": SECRET},
        )
        await asyncio.to_thread(server.start)
        try:
            created = await request(server.port, "POST", "/files/", headers={**TUS, "origin": "https://a.example"})
            assert created.status == 201
            assert created.headers["location"].startswith("renamed?upload=")
            assert created.headers["access-control-allow-origin"] == "https://a.example"
            assert "upload-expires" in created.headers
            told = await request(server.port, "OPTIONS", "/files/")
            assert told.headers["tus-max-size"] == "10"
        finally:
            server.kill()
    assert heard == ["upload.requested"]
