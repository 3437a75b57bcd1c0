"""``penstock stop``: the "stop generating" button."""

from __future__ import annotations

import asyncio

import click

from penstock.cli.options import Shared, shared_options


@click.command("stop")
@click.argument("name")
@click.option("--reason", default="", metavar="TEXT", help="What the producer and the other readers are told.")
@shared_options
def command(shared: Shared, name: str, reason: str) -> None:
    """Close the stream NAME, and tell whoever writes it that its readers have enough."""

    async def run() -> None:
        async with shared.client() as client:
            stream = await client.stop(name, reason)
        shared.document({"name": name, "state": stream.state, "offset": stream.tail, "reason": stream.stopped})
        if stream.stopped is None:
            shared.note(f"{name} had ended before.")

    asyncio.run(run())
