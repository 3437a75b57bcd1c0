"""Forms as bytes, written by hand."""

from __future__ import annotations

from pathlib import Path

B = "bound-ary"
TYPE = f"multipart/form-data; boundary={B}"
END = f"--{B}--\r\n".encode()


def part(name: str, data: bytes, filename: str | None = None, *fields: str) -> bytes:
    """Return a part; ``fields`` are further lines of its header."""
    disposition = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        disposition += f'; filename="{filename}"'
    head = "\r\n".join([f"--{B}", disposition, *fields, "\r\n"])
    return head.encode() + data + b"\r\n"


def names_in(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())
