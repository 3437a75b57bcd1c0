"""``penstock info``: tell about a stream."""

from __future__ import annotations

import asyncio

import click

from penstock.cli.describe import as_json, local_time, size
from penstock.cli.options import Shared, shared_options


@click.command("info")
@click.argument("name")
@click.option("--presence", is_flag=True, help="Tell who is there, too: readers and producers.")
@shared_options
def command(shared: Shared, name: str, *, presence: bool) -> None:
    """Tell about the stream NAME."""

    async def run() -> None:
        async with shared.client() as client:
            stream = await client.info(name)
            there = await client.presence(name) if presence else None
        known = {} if there is None else {"readers": there.readers, "names": there.names, "producers": there.producers}
        shared.document({**as_json(stream), **known})
        facts = {
            "name": stream.name,
            "state": stream.state if stream.failure is None else f"failed: {stream.failure}",
            "size": f"{stream.tail} ({size(stream.tail)})",
            "type": stream.content_type,
            "modified": local_time(stream.modified_at),
            "expires": local_time(stream.expires_at or 0),
            "incarnation": stream.incarnation,
            "etag": stream.etag,
            **{algorithm: digest.hex() for algorithm, digest in stream.digests.items()},
            "url": stream.url,
            **{label: ", ".join(value) if isinstance(value, tuple) else str(value) for label, value in known.items()},
            "producer": "vanished" if there is not None and there.vanished else "",
        }
        for label, value in facts.items():
            if value and not shared.json:
                click.echo(f"{label + ':':<13}{value}")

    asyncio.run(run())
