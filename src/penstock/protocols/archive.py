"""Zip archives (PKWARE APPNOTE 6.3) written in one go: headers before the data, what is known only later behind it."""

import re
import struct
import time
from dataclasses import dataclass
from typing import Final

__all__ = ["END", "ArchiveWriter", "Member", "Written", "archive_end", "check_member_name"]

_MOST32: Final = 0xFFFFFFFF
_MOST16: Final = 0xFFFF

_LOCAL: Final = struct.Struct("<4s5H3L2H")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_DESCRIPTOR: Final = struct.Struct("<4s3L")
_DESCRIPTOR64: Final = struct.Struct("<4sL2Q")
_END: Final = struct.Struct("<4s4H2LH")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64: Final = struct.Struct("<4sLQL")
_TIME: Final = struct.Struct("<2H B l")  # extended timestamp: the modification time, in UTC
_TIME_FIELD: Final = 0x5455
_ZIP64_FIELD: Final = 0x0001

END: Final = _END.size
"""Bytes of an empty archive."""

_UTF8: Final = 0x0800
_BEHIND: Final = 0x0008  # sizes and checksum stand behind the data
_UNIX: Final = 3 << 8
_DIRECTORY: Final = 0x10  # as MS-DOS marks a folder
_REGULAR_FILE: Final = 0o100000
_FOLDER: Final = 0o040000

_HOSTILE: Final = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")
_DRIVE: Final = re.compile(r"[A-Za-z]:")


def check_member_name(name: str) -> str:
    """Return a name that unpacks to a place within the folder that it is unpacked into.

    Raises:
        ValueError: it is empty, absolute, has ``.`` or ``..`` or nothing between its slashes, a backslash, a drive
            letter or a control character, or is too long.
    """
    parts = name.removesuffix("/").split("/")
    if any(part in {"", ".", ".."} for part in parts) or _HOSTILE.search(name) or _DRIVE.match(name):
        raise ValueError(f"not a safe name in an archive: {name!r}")
    if len(name.encode()) > _MOST16:
        raise ValueError(f"too long a name for an archive: {name[:100]!r}...")
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What an archive says about a file before its data.

    Attributes:
        name: its path, checked; a folder's ends with a slash.
        modified: Unix seconds.
        size: how many bytes it has, not compressed; None if that shows only at its end.
        crc: its CRC-32, if that is known before.
        deflated: whether it is compressed.
        mode: its permissions.
    """

    name: str
    modified: float
    size: int | None = None
    crc: int | None = None
    deflated: bool = False
    mode: int = 0o644

    @property
    def behind(self) -> bool:
        """Whether a data descriptor follows the data."""
        return self.crc is None or self.size is None or self.deflated

    @property
    def zip64(self) -> bool:
        """Whether the sizes around its data have 64 bits: they are not sure to fit into 32, also when compressed."""
        return self.size is None or self.size + (self.size >> 10) + 65536 > _MOST32

    def header(self) -> bytes:
        """Return what precedes the data."""
        name = self.name.encode()
        crc = size = 0
        if not self.behind:
            crc, size = self.crc or 0, self.size or 0
        extra = self._time()
        if self.zip64:
            extra += struct.pack("<2H2Q", _ZIP64_FIELD, 16, size, size)
            size = _MOST32
        return _LOCAL.pack(b"PK\3\4", *self._common(), crc, size, size, len(name), len(extra)) + name + extra

    def descriptor(self, written: "Written") -> bytes:
        """Return what follows the data."""
        if not self.behind:
            return b""
        form = _DESCRIPTOR64 if self.zip64 else _DESCRIPTOR
        return form.pack(b"PK\7\x08", written.crc, written.compressed, written.size)

    def record(self, written: "Written", offset: int) -> bytes:
        """Return the entry of the directory at the end; its length does not depend on the checksum."""
        name = self.name.encode()
        large = []
        size, compressed, at = written.size, written.compressed, offset
        if max(size, compressed) >= _MOST32:
            large += [size, compressed]
            size = compressed = _MOST32
        if offset >= _MOST32:
            large.append(offset)
            at = _MOST32
        extra = self._time()
        if large:
            extra += struct.pack(f"<2H{len(large)}Q", _ZIP64_FIELD, 8 * len(large), *large)
        needed, *rest = self._common()
        needed = max(needed, 45 if large else 20)
        folder = self.name.endswith("/")
        attributes = ((_FOLDER if folder else _REGULAR_FILE) | self.mode & 0o777) << 16 | (_DIRECTORY if folder else 0)
        fixed = (written.crc, compressed, size, len(name), len(extra), 0, 0, 0, attributes, at)
        return _CENTRAL.pack(b"PK\1\2", _UNIX | needed, needed, *rest, *fixed) + name + extra

    def _common(self) -> tuple[int, int, int, int, int]:
        """Return version, flags, method, time and date."""
        # MS-DOS has the local time of nobody knows where; what can read the extended timestamp prefers that.
        then = time.localtime(min(max(self.modified, 315619200), 4354732800))
        clock = then.tm_hour << 11 | then.tm_min << 5 | min(then.tm_sec, 59) // 2
        date = (then.tm_year - 1980) << 9 | then.tm_mon << 5 | then.tm_mday
        flags = _UTF8 | (_BEHIND if self.behind else 0)
        return 45 if self.zip64 else 20, flags, 8 if self.deflated else 0, clock, date

    def _time(self) -> bytes:
        seconds = int(self.modified // 1)
        return _TIME.pack(_TIME_FIELD, 5, 1, seconds) if -(2**31) <= seconds < 2**31 else b""


@dataclass(frozen=True, slots=True)
class Written:
    """What is known of a file after its data.

    Attributes:
        crc: its CRC-32.
        size: how many bytes it has.
        compressed: how many bytes stand in the archive.
    """

    crc: int
    size: int
    compressed: int


def archive_end(count: int, offset: int, size: int) -> bytes:
    """Return what follows the directory: ``count`` entries, ``size`` bytes from ``offset`` on."""
    end = b""
    if count >= _MOST16 or offset >= _MOST32 or size >= _MOST32:
        place = offset + size
        end = _END64.pack(b"PK\6\6", _END64.size - 12, _UNIX | 45, 45, 0, 0, count, count, size, offset)
        end += _LOCATOR64.pack(b"PK\6\7", 0, place, 1)
    count, offset, size = min(count, _MOST16), min(offset, _MOST32), min(size, _MOST32)
    return end + _END.pack(b"PK\5\6", 0, 0, count, count, size, offset, 0)


class ArchiveWriter:
    """The framing around data that is compressed, or not, elsewhere: for each member `begin`, its data, `end`."""

    def __init__(self) -> None:
        self._offset = 0
        self._records: list[bytes] = []

    def begin(self, member: Member) -> bytes:
        """Return what precedes a member's data."""
        header = member.header()
        self._member, self._at = member, self._offset
        self._offset += len(header)
        return header

    def end(self, written: Written) -> bytes:
        """Return what follows a member's data."""
        descriptor = self._member.descriptor(written)
        self._offset += written.compressed + len(descriptor)
        self._records.append(self._member.record(written, self._at))
        return descriptor

    def finish(self) -> bytes:
        """Return the directory."""
        directory = b"".join(self._records)
        return directory + archive_end(len(self._records), self._offset, len(directory))
