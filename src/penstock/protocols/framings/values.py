"""Records as JSON values inside of other JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from penstock.protocols.framings.framing import Kind
from penstock.protocols.records import is_json


def values_of(kind: Kind, lines: Sequence[bytes]) -> list[bytes]:
    """Return each record as one JSON text. Lines of text become JSON texts; a CR that belongs to a line end goes.

    A stream of JSON that did not come record by record (an uploaded file) may have lines that are not JSON. They become
    texts too, so that they break nothing around them.
    """
    if kind == "json":
        return [line if is_json(line) else _text(line) for line in lines]
    return [_text(line) for line in lines]


def _text(line: bytes) -> bytes:
    text = line.removesuffix(b"\r").decode(errors="replace")
    return json.dumps(text, ensure_ascii=False).encode()
