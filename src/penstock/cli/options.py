"""Options that all commands of the client have."""

from __future__ import annotations

import functools
import json as json_module
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec

import click

if TYPE_CHECKING:
    from penstock.client import Client

P = ParamSpec("P")

DEFAULT_URL: Final = "http://127.0.0.1:8080"


@dataclass(frozen=True, slots=True)
class Shared:
    """What the options of all commands say.

    Attributes:
        url: the server's address.
        retries: how many failures in a row to put up with, or None for the client's own number.
        quiet: whether to say nothing but errors.
        json: whether to write what programs can read.
    """

    url: str = DEFAULT_URL
    retries: int | None = None
    quiet: bool = False
    json: bool = False

    def client(self) -> Client:
        """Return a client for the server.

        Raises:
            click.UsageError: the address is not one.
        """
        from penstock.cli.notes import show_warnings
        from penstock.client import Client, ClientOptions

        show_warnings(show=not self.quiet)
        options = ClientOptions() if self.retries is None else ClientOptions(retries=self.retries)
        try:
            return Client(self.url, **options)
        except ValueError as error:
            raise click.UsageError(f"--url: {error}") from error

    def say(self, text: str) -> None:
        """Write a line of the result to the standard output, unless it is to be quiet or for programs."""
        if not self.quiet and not self.json:
            click.echo(text)

    def note(self, text: str) -> None:
        """Tell the person at the terminal something besides the result."""
        if not self.quiet:
            click.echo(f"penstock: {text}", err=True)

    def document(self, value: Any) -> None:
        """Write a JSON document on a line of its own, if output is for programs."""
        if self.json:
            sys.stdout.write(json_module.dumps(value, ensure_ascii=False) + "\n")
            sys.stdout.flush()


def shared_options(function: Callable[Concatenate[Shared, P], None]) -> Callable[P, None]:
    """Give a command the shared options; it gets them as a `Shared`, its first argument.

    They may stand before the command's name, too; what stands after it counts.
    """

    @click.option("--url", help="The server's address (default: $PENSTOCK_URL).")
    @click.option("--retries", type=click.IntRange(min=0), help="How many failures in a row to put up with.")
    @click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
    @click.option("--json", is_flag=True, help="Write JSON, for programs.")
    @click.pass_context
    @functools.wraps(function)
    def command(
        ctx: click.Context, /, *args: Any, url: str | None, retries: int | None, quiet: bool, json: bool, **kwargs: Any
    ) -> None:
        before = ctx.find_object(Shared) or Shared()
        shared = replace(
            before,
            url=before.url if url is None else url,
            retries=before.retries if retries is None else retries,
            quiet=before.quiet or quiet,
            json=json,
        )
        function(shared, *args, **kwargs)

    return command  # type: ignore[return-value]  # click passes by name what P stands for
