"""How subscriptions see the streams that they are about."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from penstock.core import rules
from penstock.core.subscriptions.globs import literal_prefix, matches
from penstock.core.subscriptions.record import LinkState
from penstock.model import StreamInfo

if TYPE_CHECKING:
    from penstock.core.service import StreamService

_FEW: Final = 20

States: TypeAlias = dict[str, LinkState]


class Looks:
    """Looks at the streams of a service."""

    def __init__(self, service: StreamService) -> None:
        self._service = service

    async def at(self, names: Iterable[str]) -> States:
        """Look at some streams: one by one, or, if there are many, at all that begin like them."""
        wanted = set(names)
        if len(wanted) > _FEW:
            prefix = os.path.commonprefix(list(wanted))  # noqa: RUF071 - names are no paths: any beginning will do
            found = {name: state for name, state in (await self._all(prefix)).items() if name in wanted}
            return {name: found.get(name, LinkState()) for name in wanted}
        return {name: self._state(await self._service.load(name)) for name in wanted}

    async def matching(self, pattern: str) -> States:
        """Look at all streams of a pattern."""
        found = await self._all(literal_prefix(pattern))
        return {name: state for name, state in found.items() if matches(pattern, name)}

    async def _all(self, prefix: str) -> States:
        return {info.name: self._state(info) async for info in self._service.list_all(prefix)}

    def _state(self, info: StreamInfo | None) -> LinkState:
        info = rules.living(info, self._service.now())
        return LinkState() if info is None or info.deleted else LinkState(info.tail, info.incarnation)
