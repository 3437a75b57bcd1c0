"""``kill -9`` at random moments: what was acknowledged is there, and nothing is half there.

Also a program: ``python tests/chaos/test_kill.py --rounds 200 --seed 7`` (``--workers 4``: one worker is killed at a
time). The seed makes what the clients do repeatable; when they are killed is a matter of time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for its use as a program

import processes
from servers import Server
from wire import Answer, Connection, events, request

ROUNDS = int(os.environ.get("PENSTOCK_CHAOS_ROUNDS", "0"))
JSON, NDJSON, TEXT = "application/json", "application/x-ndjson", "text/plain"


def expect(holds: bool, what: Callable[[], str]) -> None:
    """Raise with an explanation that is put together only then: what is compared here is long."""
    if not holds:
        raise AssertionError(what())


def told(content: bytes | None) -> str:
    if content is None:
        return "nothing"
    return f"{len(content)} bytes ({hashlib.sha256(content).hexdigest()[:12]})"


class Entry:
    """A name that one client writes: what was acknowledged, and what may have become of it since.

    Attributes:
        content: the bytes after the last operation whose outcome is known; None for no stream.
        doubt: the content that an operation without an answer would have led to.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.content: bytes | None = None
        self.doubt: list[bytes | None] = []
        self.number = 0

    @property
    def path(self) -> str:
        return f"/files/{self.name}"

    def begin(self, after: bytes | None) -> None:
        self.doubt = [after]

    def acknowledged(self) -> None:
        (self.content,) = self.doubt
        self.doubt = []

    def resolve(self, found: bytes | None) -> bool:
        """Take in what is there after the crash; tell whether the operation in doubt was carried out."""
        allowed = [self.content, *self.doubt]
        expect(
            found in allowed,
            lambda: (
                f"{self.name} is {told(found)}, after {told(self.content)} was acknowledged"
                + "".join(f" and {told(after)} was on its way" for after in self.doubt)
            ),
        )
        done = found != self.content
        self.content, self.doubt = found, []
        return done


class Client(ABC):
    """Makes random requests while the server is up, and compares what is there with what it was told."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.random = random.Random()
        self.counts: Counter[str] = Counter()
        self.entries: list[Entry] = []

    @abstractmethod
    async def run(self, port: int, until: float) -> None:
        """Make requests until then, whatever becomes of the server."""

    @abstractmethod
    async def settle(self, port: int) -> None:
        """After the crash: see what is there."""

    def _check(self, answer: Answer, *allowed: int) -> None:
        expect(answer.status in allowed, lambda: f"{self.label} was answered {answer.status}: {answer.body[:500]!r}")


class Owner(Client):
    """Writes names that nobody else writes."""

    async def run(self, port: int, until: float) -> None:
        while time.monotonic() < until:
            try:
                async with Connection(port) as connection:
                    while time.monotonic() < until and (free := [entry for entry in self.entries if not entry.doubt]):
                        await self.step(connection, self.random.choice(free))
            except OSError:
                self.counts["cut"] += 1
            await asyncio.sleep(0.02)

    @abstractmethod
    async def step(self, connection: Connection, entry: Entry) -> None:
        """Make a request, and note what it came to."""

    async def settle(self, port: int) -> None:
        for entry in self.entries:
            in_doubt = bool(entry.doubt)
            done = entry.resolve(await content_of(port, entry.name))
            self.counts["in doubt, done" if done else "in doubt, not done"] += in_doubt

    async def _read(self, connection: Connection, entry: Entry) -> None:
        answer = await connection.request("GET", entry.path)
        found = None if answer.status == 404 else answer.body
        expect(found == entry.content, lambda: f"{entry.name} reads as {told(found)}, not {told(entry.content)}")
        self.counts["read"] += 1

    async def _delete(self, connection: Connection, entry: Entry) -> None:
        entry.begin(None)
        self._check(await connection.request("DELETE", entry.path), 204)
        entry.acknowledged()
        self.counts["deleted"] += 1


class FileClient(Owner):
    """Puts, replaces, reads and deletes files of its own."""

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.entries = [Entry(f"{label}/{number}") for number in range(3)]

    async def step(self, connection: Connection, entry: Entry) -> None:
        dice = self.random.random()
        if dice < 0.1:
            await self._read(connection, entry)
        elif dice < 0.2 and entry.content is not None:
            await self._delete(connection, entry)
        elif dice < 0.6:
            await self._put(connection, entry, self.random.randint(0, 70_000))
        else:
            await self._put(connection, entry, self.random.randint(70_000, 4_000_000))

    async def _put(self, connection: Connection, entry: Entry, size: int) -> None:
        body = self.random.randbytes(size)
        headers = {"content-type": "application/octet-stream"}
        if self.random.random() < 0.5:
            headers["content-digest"] = f"sha-256=:{b64encode(hashlib.sha256(body).digest()).decode()}:"
        chunked = self.random.random() < 0.5
        entry.begin(body)
        await connection.begin(
            "PUT",
            entry.path,
            {**headers, **({"transfer-encoding": "chunked"} if chunked else {"content-length": str(size)})},
        )
        piece = self.random.choice([30_000, 300_000, 4_000_000])
        for start in range(0, size, piece):
            await (connection.write_chunk if chunked else connection.write)(body[start : start + piece])
        if chunked:
            await connection.write_chunk(b"")
        self._check(await connection.answer(), 201 if entry.content is None else 200)
        entry.acknowledged()
        self.counts["put"] += 1


class LogClient(Owner):
    """Appends lines to a log of its own, which it deletes now and then. Without a producer it never repeats itself."""

    def __init__(self, label: str, content_type: str) -> None:
        super().__init__(label)
        self._content_type = content_type
        self.entries = [Entry(label)]

    async def step(self, connection: Connection, entry: Entry) -> None:
        dice = self.random.random()
        if dice < 0.05:
            await self._read(connection, entry)
        elif entry.content is not None and (dice < 0.07 or len(entry.content) > 6_000_000):
            await self._delete(connection, entry)
        else:
            await self._append(connection, entry)

    async def _append(self, connection: Connection, entry: Entry) -> None:
        record = self._record(entry, self.random.choice([0, 10, 100, 1000, 50_000, 200_000]))
        entry.begin((entry.content or b"") + record + b"\n")
        answer = await connection.request("POST", f"/live/{entry.name}", record, {"content-type": self._content_type})
        self._check(answer, 201 if entry.content is None else 200)
        entry.acknowledged()
        expect(answer.json()["offset"] == len(entry.content or b""), lambda: f"{self.label}: {answer.body!r}")
        self.counts["appended"] += 1

    def _record(self, entry: Entry, padding: int) -> bytes:
        entry.number += 1
        value = {"n": entry.number, "x": "x" * padding}
        return json.dumps(value, separators=(",", ":")).encode()


class ProducerClient(LogClient):
    """Appends one record or several to a log of its own, as a producer; after a crash it repeats what was in doubt."""

    def __init__(self, label: str) -> None:
        super().__init__(label, JSON)
        self._epoch = self._sequence = 0
        self._last: tuple[bytes, dict[str, str]] = b"", {}

    async def _delete(self, connection: Connection, entry: Entry) -> None:
        self._last = b"", {}
        await super()._delete(connection, entry)

    async def _append(self, connection: Connection, entry: Entry) -> None:
        if entry.content is None:  # a stream that is new knows no producers
            self._sequence = 0
        elif self.random.random() < 0.02:
            self._epoch, self._sequence = self._epoch + 1, 0
        several = self.random.random() < 0.3
        count = self.random.randint(2, 40) if several else 1
        body = b"\n".join([self._record(entry, self.random.choice([0, 10, 1000, 9000])) for _ in range(count)])
        self._last = (
            body,
            {
                "content-type": NDJSON if several else JSON,
                "producer-id": self.label,
                "producer-epoch": str(self._epoch),
                "producer-seq": str(self._sequence),
            },
        )
        entry.begin((entry.content or b"") + body + b"\n")
        answer = await connection.request("POST", f"/live/{entry.name}", *self._last)
        self._check(answer, 201 if entry.content is None else 200)
        expect(not answer.json()["duplicate"], lambda: f"{self.label}: {answer.body!r}")
        entry.acknowledged()
        self._sequence += 1
        self.counts["appended"] += count

    async def settle(self, port: int) -> None:
        (entry,) = self.entries
        after = entry.doubt[0] if entry.doubt else None
        before = entry.content
        await super().settle(port)
        if after is None or not self._last[0]:
            return
        answer = await request(port, "POST", f"/live/{entry.name}", *self._last)
        self._check(answer, 201 if entry.content is None else 200)
        expect(
            answer.json()["duplicate"] == (entry.content != before) and answer.json()["offset"] == len(after),
            lambda: f"{self.label} repeated what was {told(entry.content)} of {told(after)}: {answer.body!r}",
        )
        entry.content = after
        self._sequence += 1
        entry.resolve(await content_of(port, entry.name))
        self.counts["repeated"] += 1


class SharedClient(Client):
    """Appends, as a producer, to a log that many append to. Whoever repeats a record has it there once.

    Attributes:
        acknowledged: the records of this client, with the offset after each.
    """

    name = "shared"

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.acknowledged: list[tuple[bytes, int]] = []
        self._in_doubt = b""

    async def run(self, port: int, until: float) -> None:
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                async with Connection(port) as connection:
                    while time.monotonic() < until:
                        await self._append(connection)
            await asyncio.sleep(0.02)

    async def _append(self, connection: Connection) -> bool:
        sequence = len(self.acknowledged)
        if not self._in_doubt:
            padding = "x" * self.random.choice([0, 50, 500])
            self._in_doubt = json.dumps(
                {"by": self.label, "seq": sequence, "x": padding}, separators=(",", ":")
            ).encode()
        answer = await connection.request(
            "POST",
            f"/live/{self.name}",
            self._in_doubt,
            {
                "content-type": JSON,
                "producer-id": self.label,
                "producer-epoch": "0",
                "producer-seq": str(sequence),
            },
        )
        self._check(answer, 200, 201)
        self.acknowledged.append((self._in_doubt, answer.json()["offset"]))
        self._in_doubt = b""
        self.counts["appended"] += 1
        return bool(answer.json()["duplicate"])

    async def settle(self, port: int) -> None:
        content = await content_of(port, self.name) or b""
        self._check_own(content)
        if self._in_doubt:
            there = self._in_doubt + b"\n" in content
            async with Connection(port) as connection:
                duplicate = await self._append(connection)
            expect(
                duplicate == there, lambda: f"{self.label}: a record that was there was taken for new, or the reverse"
            )
            self.counts["repeated"] += 1
            self._check_own(await content_of(port, self.name) or b"")

    def _check_own(self, content: bytes) -> None:
        own = [line for line in content.splitlines() if json.loads(line)["by"] == self.label]
        expected = [record for record, _ in self.acknowledged]
        expect(
            own in (expected, [*expected, self._in_doubt]),
            lambda: f"{self.label} finds {len(own)} records, after {len(expected)} were acknowledged",
        )
        for record, offset in self.acknowledged:
            if content[offset - len(record) - 1 : offset] != record + b"\n":
                raise AssertionError(f"{self.label}: {record!r} is not at {offset}")


class SharedReader(Client):
    """Reads the shared log live: what it was shown once is not taken back, and it comes back without a gap."""

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self._seen = bytearray()

    async def run(self, port: int, until: float) -> None:
        while time.monotonic() < until:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + until - time.monotonic()):
                    await self._follow(port)
            await asyncio.sleep(0.02)

    async def _follow(self, port: int) -> None:
        async with Connection(port) as connection:
            await connection.begin(
                "GET", f"/live/{SharedClient.name}?offset=0", {"last-event-id": str(len(self._seen))}
            )
            if await connection.head() == 404:  # nobody has appended yet
                return
            expect(connection.status == 200, lambda: f"{self.label} was answered {connection.status}")
            async for event in events(connection):
                self._seen += event.data.encode() + b"\n"
                if event.kind != "message" or int(event.id) != len(self._seen):
                    raise AssertionError(f"{self.label}: {event} at {len(self._seen)}")
                self.counts["seen"] += 1

    async def settle(self, port: int) -> None:
        content = await content_of(port, SharedClient.name) or b""
        expect(content.startswith(self._seen), lambda: f"{self.label} was shown what is not there any more")


async def content_of(port: int, name: str) -> bytes | None:
    answer = await request(port, "GET", f"/files/{name}")
    expect(answer.status in {200, 404}, lambda: f"reading {name} was answered {answer.status}: {answer.body!r}")
    return answer.body if answer.status == 200 else None


class Chaos:
    """Clients, and a server that is killed under them."""

    def __init__(self, server: Server, seed: int, say: Callable[[str], None] = lambda _: None) -> None:
        self._server = server
        self._seed = seed
        self._say = say
        self._random = random.Random(f"{seed}")
        self._shared = [SharedClient(f"shared-{number}") for number in range(3)]
        self._clients: list[Client] = [
            *(FileClient(f"files-{number}") for number in range(3)),
            *(ProducerClient(f"producer-{number}") for number in range(2)),
            LogClient("text", TEXT),
            LogClient("json", JSON),
            *self._shared,
            SharedReader("reader"),
        ]

    @property
    def counts(self) -> Counter[str]:
        return sum((client.counts for client in self._clients), Counter[str]())

    async def kill_server(self, rounds: int) -> None:
        """Round after round: kill it all while the clients are at it, start it again, and look."""
        for number in range(rounds):
            traffic = self._traffic(number, 60.0)
            await asyncio.sleep(self._random.uniform(0.02, 0.6))
            self._server.kill()
            for task in traffic:
                task.cancel()
            await self._ended(traffic)
            if self._random.random() < 0.2:
                await self._kill_while_it_starts(self._random.uniform(0.0, 1.0))
            await asyncio.to_thread(self._server.start)
            await self._verify(number)

    async def kill_workers(self, rounds: int) -> None:
        """Round after round: kill one worker while the others go on, and look once it has been replaced."""
        count = len(processes.workers(self._server.pid))
        for number in range(rounds):
            traffic = self._traffic(number, 1.0)
            await asyncio.sleep(self._random.uniform(0.02, 0.8))
            os.kill(self._victim(), signal.SIGKILL)
            await self._ended(traffic)
            await self._until(lambda: len(processes.workers(self._server.pid)) == count, "the worker is not replaced")
            await self._verify(number)

    def _traffic(self, number: int, seconds: float) -> list[asyncio.Task[None]]:
        until = time.monotonic() + seconds
        for client in self._clients:
            client.random.seed(f"{self._seed}/{number}/{client.label}")
        return [asyncio.create_task(client.run(self._server.port, until)) for client in self._clients]

    def _victim(self) -> int:
        """Choose a worker, rather a busy one: the kernel does not spread connections evenly."""
        sockets = {
            pid: sum(target.startswith("socket:") for target in processes.descriptors(pid))
            for pid in processes.workers(self._server.pid)
        }
        least = min(sockets.values())
        (victim,) = self._random.choices(list(sockets), [count - least + 0.2 for count in sockets.values()])
        return victim

    async def _ended(self, traffic: Iterable[asyncio.Task[None]]) -> None:
        for result in await asyncio.gather(*traffic, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def _kill_while_it_starts(self, after: float) -> None:
        starting = asyncio.create_task(asyncio.to_thread(self._server.start))
        await asyncio.sleep(after)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        with contextlib.suppress(RuntimeError):  # it did not start: so it was meant
            await starting
        self._server.kill()

    async def _verify(self, number: int) -> None:
        await self._until(lambda: not rubbish(self._server.data), lambda: "; ".join(rubbish(self._server.data)))
        for client in self._clients:
            await client.settle(self._server.port)
        await self._check_shared()
        await self._check_names()
        self._say(f"round {number + 1}: {dict(sorted(self.counts.items()))}")

    async def _check_shared(self) -> None:
        content = await content_of(self._server.port, SharedClient.name) or b""
        expected = sorted(record for client in self._shared for record, _ in client.acknowledged)
        expect(sorted(content.splitlines()) == expected, lambda: "the shared log holds what nobody appended, or twice")

    async def _check_names(self) -> None:
        answer = await request(self._server.port, "GET", "/files/")
        found = {stream["name"]: stream["tail"] for stream in answer.json()["streams"]}
        found.pop(SharedClient.name, None)
        entries = [entry for client in self._clients for entry in client.entries]
        expected = {entry.name: len(entry.content) for entry in entries if entry.content is not None}
        expect(found == expected, lambda: f"the listing says {found}, and not {expected}")

    async def _until(self, holds: Callable[[], bool], otherwise: str | Callable[[], str]) -> None:
        deadline = time.monotonic() + 30
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(otherwise if isinstance(otherwise, str) else otherwise())
            await asyncio.sleep(0.05)


def rubbish(data: Path) -> list[str]:
    """Say what is in a data folder that should not be, once a crash was recovered from and all is quiet."""
    files = {path.name: path.stat().st_size for path in (data / "blobs").glob("*/*")}
    with contextlib.closing(sqlite3.connect(f"file:{data}/catalog.sqlite3?mode=ro", uri=True)) as catalog:
        streams = catalog.execute("SELECT incarnation, filed, published, instance FROM streams").fetchall()
        (check,) = catalog.execute("PRAGMA quick_check").fetchone()
    found = [] if check == "ok" else [f"SQLite finds: {check}"]
    filed = {incarnation: size for incarnation, size, _, _ in streams}
    for incarnation, _, published, instance in streams:
        if instance is not None or not published:
            found.append(f"{incarnation} is provisional")
    for incarnation, size in files.items():
        if incarnation not in filed:
            found.append(f"the file {incarnation} belongs to no stream")
        elif size > filed[incarnation]:
            found.append(f"the file {incarnation} has {size} bytes, and the catalog knows of {filed[incarnation]}")
    for incarnation, size in filed.items():
        if size > files.get(incarnation, 0):
            found.append(f"the file {incarnation} lacks bytes")
    return found


@pytest.mark.skipif(not processes.AVAILABLE, reason="looks into /proc")
@pytest.mark.timeout(120 + 10 * ROUNDS)
def test_a_killed_server_has_all_that_it_acknowledged(tmp_path: Path) -> None:
    seed = random.randrange(1_000_000)
    sys.stdout.write(f"seed {seed}\n")  # shown where it fails
    with Server(tmp_path / "data") as server:
        asyncio.run(Chaos(server, seed).kill_server(ROUNDS or 8))


@pytest.mark.skipif(not processes.AVAILABLE, reason="looks into /proc")
@pytest.mark.timeout(120 + 10 * ROUNDS)
def test_a_killed_worker_takes_nothing_with_it(tmp_path: Path) -> None:
    seed = random.randrange(1_000_000)
    sys.stdout.write(f"seed {seed}\n")
    with Server(tmp_path / "data", "--workers", "4") as server:
        asyncio.run(Chaos(server, seed).kill_workers(ROUNDS or 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--workers", type=int, default=1, help="with more than one, only a worker is killed")
    parser.add_argument("--folder", type=Path, help="where the data folder is made; it is kept")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="penstock-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    say = print
    say(f"seed {arguments.seed}, {folder}")
    with Server(folder / "data", "--workers", str(arguments.workers)) as server:
        chaos = Chaos(server, arguments.seed, lambda text: say(text, flush=True))
        asyncio.run((chaos.kill_workers if arguments.workers > 1 else chaos.kill_server)(arguments.rounds))
    if arguments.folder is None:
        shutil.rmtree(folder)
    say("All is there.")


if __name__ == "__main__":
    main()
