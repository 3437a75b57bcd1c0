"""Wake-ups between the processes of one machine: datagrams on Unix sockets in a folder that they share.

Each process has a socket in the folder and sends the names that changed to all others. A process that comes says hello
to those that are there; one that went is noticed by the next datagram to it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from penstock.notifiers.inprocess import InProcessGroupWatch, InProcessNotifier, InProcessWatch

_HELLO = b"\x01"
_EVERYTHING = b"\x02"
_QUESTION = b"\x03"
_ANSWER = b"\x04"
_SEPARATOR = b"\x00"  # in no name
_DATAGRAM = 32 * 1024
_MOST_PENDING = 4096
_PATIENCE = 0.5  # seconds in which another process answers, or does not
_LONGEST_PATH = 90  # sun_path has 104 bytes on the narrowest system


class MachineNotifier:
    """See `Notifier`.

    Args:
        folder: where the sockets are; all processes that share a store must name the same one.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._here = InProcessNotifier()
        self._id = secrets.token_hex(8)
        self._peers: dict[str, _Peer] = {}
        self._changed: set[bytes] = set()
        self._socket: socket.socket | None = None
        self._answer: Callable[[bytes], bytes] = lambda _: b""
        self._questions: dict[bytes, _Question] = {}

    async def start(self) -> None:
        """See `Notifier.start`."""
        self._loop = asyncio.get_running_loop()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._link: tempfile.TemporaryDirectory[str] | None = None
        self._reach = self._folder
        if len(os.fsencode(self._folder.resolve())) > _LONGEST_PATH - len(self._id):
            self._link = tempfile.TemporaryDirectory(prefix="penstock-")
            self._reach = Path(self._link.name) / "s"
            self._reach.symlink_to(self._folder.resolve(), target_is_directory=True)
        self._socket = _datagram_socket()
        self._socket.bind(os.fspath(self._reach / self._id))
        self._loop.add_reader(self._socket, self._receive)
        for path in self._folder.iterdir():
            if path.name != self._id:
                self._meet(path.name, greet=True)

    async def stop(self) -> None:
        """See `Notifier.stop`."""
        if self._socket is not None:
            self._flush()
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
            with suppress(FileNotFoundError):
                (self._folder / self._id).unlink()
            for peer in self._peers.values():
                peer.close()
            self._peers.clear()
            if self._link is not None:
                self._link.cleanup()
        await self._here.stop()

    def watch(self, name: str) -> InProcessWatch:
        """See `Notifier.watch`."""
        return self._here.watch(name)

    def watch_group(self, prefix: str | None, names: Sequence[str] = ()) -> InProcessGroupWatch:
        """See `Notifier.watch_group`."""
        return self._here.watch_group(prefix, names)

    def notify(self, name: str) -> None:
        """See `Notifier.notify`. What changed within one turn of the event loop goes out together."""
        self._here.notify(name)
        if self._peers:
            if not self._changed:
                self._loop.call_soon(self._flush)
            self._changed.add(name.encode())

    def notify_all(self) -> None:
        """See `Notifier.notify_all`."""
        self._here.notify_all()

    def on_question(self, answer: Callable[[bytes], bytes]) -> None:
        """See `Notifier.on_question`."""
        self._answer = answer

    async def ask(self, question: bytes) -> Sequence[bytes]:
        """See `Notifier.ask`."""
        number = secrets.token_bytes(8)
        head = self._id.encode() + number
        asked = [peer for peer in self._peers.values() if peer.send_now(_QUESTION + head + question)]
        if not asked:
            return ()
        pending = self._questions[number] = _Question(len(asked), self._loop.create_future())
        timer = self._loop.call_later(_PATIENCE, pending.end)
        try:
            await pending.ended
        finally:
            timer.cancel()
            del self._questions[number]
        return pending.answers

    def _reply(self, datagram: bytes) -> None:
        """Answer a question: it begins with who asks, in 16 characters, and its number, in 8 bytes."""
        peer = self._peers.get(datagram[1:17].decode())
        if peer is not None:
            peer.send_now(_ANSWER + datagram[17:25] + self._answer(datagram[25:])[:_DATAGRAM])

    def _take_answer(self, datagram: bytes) -> None:
        pending = self._questions.get(datagram[1:9])
        if pending is not None:
            pending.add(datagram[9:])

    def _flush(self) -> None:
        changed, self._changed = self._changed, set()
        if changed:
            for peer in list(self._peers.values()):
                self._send(peer, changed)

    def _send(self, peer: _Peer, names: set[bytes]) -> None:
        if not peer.send(names):
            self._forget(peer)

    def _receive(self) -> None:
        while self._socket is not None:
            try:
                datagram = self._socket.recv(2 * _DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            if datagram.startswith(_HELLO):
                self._meet(datagram[1:].decode(), greet=False)
                # Whatever was told before the hello arrived was not told to that one.
            elif datagram == _EVERYTHING:
                self._here.notify_all()
            elif datagram.startswith(_QUESTION):
                self._reply(datagram)
            elif datagram.startswith(_ANSWER):
                self._take_answer(datagram)
            else:
                for name in datagram.split(_SEPARATOR):
                    self._here.notify(name.decode(), far=True)

    def _meet(self, name: str, *, greet: bool) -> None:
        if name in self._peers:
            return
        peer = _Peer(self._loop, self._reach / name)
        if not peer.connect() or (greet and not peer.greet(self._id)):
            self._forget(peer)
        else:
            self._peers[name] = peer

    def _forget(self, peer: _Peer) -> None:
        """Its process has gone: nobody listens at the socket."""
        self._peers.pop(peer.path.name, None)
        peer.close()
        with suppress(OSError):
            peer.path.unlink()


@dataclass(slots=True)
class _Question:
    """One that was asked: how many answers are still to come, and those that came."""

    left: int
    ended: asyncio.Future[None]
    answers: list[bytes] = field(default_factory=list)

    def add(self, answer: bytes) -> None:
        self.answers.append(answer)
        self.left -= 1
        if not self.left:
            self.end()

    def end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class _Peer:
    """Another process. What does not fit into its socket now waits here, as a set of names, and so is bounded."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: Path) -> None:
        self.path = path
        self._loop = loop
        self._socket = _datagram_socket()
        self._pending: set[bytes] = set()
        self._waiting = False

    def connect(self) -> bool:
        try:
            self._socket.connect(os.fspath(self.path))
        except OSError:
            return False
        return True

    def greet(self, name: str) -> bool:
        try:
            self._socket.send(_HELLO + name.encode())
        except BlockingIOError:
            self._pending.add(_HELLO + name.encode())
            self._wait()
        except OSError:
            return False
        return True

    def send_now(self, datagram: bytes) -> bool:
        """Send at once, or not at all."""
        try:
            self._socket.send(datagram)
        except OSError:
            return False
        return True

    def send(self, names: set[bytes]) -> bool:
        """Send, or keep for when there is room; False if nobody listens any more."""
        self._pending |= names
        if len(self._pending) > _MOST_PENDING:
            hellos = {name for name in self._pending if name.startswith(_HELLO)}
            self._pending = {*hellos, _EVERYTHING}
        return self._waiting or self._drain()

    def _drain(self) -> bool:
        while self._pending:
            datagram, sent = self._datagram()
            try:
                self._socket.send(datagram)
            except BlockingIOError:
                self._wait()
                return True
            except OSError:
                return False
            self._pending -= sent
        self._stop_waiting()
        return True

    def _datagram(self) -> tuple[bytes, set[bytes]]:
        """Put together as many names as fit into one datagram."""
        first = next(iter(self._pending))
        if first[:1] in {_HELLO, _EVERYTHING}:
            return first, {first}
        names: set[bytes] = set()
        size = 0
        for name in self._pending:
            size += len(name) + 1
            if size > _DATAGRAM:
                break
            if name[:1] not in {_HELLO, _EVERYTHING}:
                names.add(name)
        return _SEPARATOR.join(names), names

    def _wait(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._loop.add_writer(self._socket, self._drain)

    def _stop_waiting(self) -> None:
        if self._waiting:
            self._waiting = False
            self._loop.remove_writer(self._socket)

    def close(self) -> None:
        self._stop_waiting()
        self._socket.close()


def _datagram_socket() -> socket.socket:
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagrams.setblocking(False)
    return datagrams
