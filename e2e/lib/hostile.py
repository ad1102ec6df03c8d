"""What the tests of hostile peers share: raw connections with deadlines, and the oracle that the gateway takes no harm.

A hostile peer may get a clean error or a closed connection, within `SECONDS_MAX`. Meanwhile and afterwards the gateway
lives, has not panicked, keeps its memory under a stated bound, and serves a session that has nothing to do with it.
"""

import random
import re
import socket
import struct
import time
from pathlib import Path

from . import wire

SECONDS_MAX = 10
MEMORY_BYTES_MAX = 128 * 1024 * 1024
PIECE_BYTES = 65536


class Watch:
    """Use as a context manager around what a hostile peer does. `dsn` is a bystander's."""

    def __init__(self, gateway, dsn, memory=MEMORY_BYTES_MAX):
        self.gateway = gateway
        self.dsn = dsn
        self.memory = memory

    def __enter__(self):
        self.pid = self.gateway.process.pid
        self.logged = len(self.gateway.log_text())
        self.bystander = wire.Connection(self.dsn.host, self.dsn.port, ca=self.dsn.sslrootcert).login(self.dsn)
        # The kernel's own high-water mark of resident memory, from here on.
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        self.before = self.resident("VmRSS")
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.check()
        finally:
            self.bystander.socket.close()

    def check(self):
        assert self.gateway.process.poll() is None, "the gateway ended"
        said = self.gateway.log_text()[self.logged:]
        assert "panicked" not in said, said[said.index("panicked") - 200:][:2000]
        grown = self.resident("VmHWM") - self.before
        assert grown < self.memory, f"memory grew by {grown // 1024} KiB, the bound is {self.memory // 1024} KiB"
        self.bystander_works()

    def bystander_works(self):
        self.bystander.socket.settimeout(SECONDS_MAX)
        assert [tag for tag, _ in self.bystander.cycle(wire.query("SELECT 1"))] == ["T", "D", "C", "Z"]

    def resident(self, name):
        return resident(self.pid, name)


def resident(pid, name):
    """Bytes of the process in memory: now (VmRSS) or at most so far (VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1024


def raw(dsn):
    """A connection before TLS, startup and everything, with nothing held back."""
    peer = socket.create_connection((dsn.host, dsn.port), timeout=SECONDS_MAX)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def session(dsn):
    """A session that is logged in."""
    connection = wire.Connection(dsn.host, dsn.port, ca=dsn.sslrootcert)
    connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.login(dsn)
    connection.socket.settimeout(SECONDS_MAX)
    return connection


def startup_packet(dsn, **parameters):
    pairs = {"user": dsn.user, "database": dsn.dbname, **parameters}
    body = b"".join(wire.cstring(name) + wire.cstring(value) for name, value in pairs.items()) + b"\0"
    return struct.pack("!ii", len(body) + 8, wire.PROTOCOL_3_0) + body


def to_the_end(peer, seconds=SECONDS_MAX):
    """All bytes until the peer closes; fails when it does not within the deadline. A reset is an end too."""
    deadline = time.monotonic() + seconds
    received = b""
    try:
        while piece := peer.recv(PIECE_BYTES):
            received += piece
            assert time.monotonic() < deadline, f"still talking after {seconds} s"
    except TimeoutError:
        raise AssertionError(f"neither an answer nor an end within {seconds} s, after {received[-200:]!r}") from None
    except (ConnectionError, OSError):
        pass
    return received


def messages(received):
    """The whole messages of a server in these bytes, as (tag, body); the bytes must be nothing but messages."""
    found = []
    while received:
        assert len(received) >= 5, f"half a message at the end: {received!r}"
        length = struct.unpack("!i", received[1:5])[0]
        assert 4 <= length < len(received), f"half a message at the end: {received[:40]!r}"
        found.append((received[:1].decode(), received[5:1 + length]))
        received = received[1 + length:]
    return found


def give_up(peer):
    """The client has nothing more to say, and reads on."""
    try:
        peer.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def reset(peer):
    """Leaves without a word: the kernel answers whatever comes with a reset."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def taken(peer):
    """Whether the gateway has read everything this socket sent: nothing waits in its socket's receive queue."""
    try:
        local, remote = _hex(*peer.getpeername()), _hex(*peer.getsockname())
    except OSError:
        return True  # the gateway has closed
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == local and fields[2] == remote:
            return fields[4].endswith(":00000000")
    return True


def _hex(address, port):
    return f"{struct.unpack('<I', socket.inet_aton(address))[0]:08X}:{port:04X}"


def send_apart(peer, *pieces):
    """Sends each piece only when the gateway has read the ones before: the cuts are where they are said to be."""
    deadline = time.monotonic() + SECONDS_MAX
    for piece in pieces:
        if piece:
            peer.sendall(piece)
            while not taken(peer):
                assert time.monotonic() < deadline, f"the gateway does not read within {SECONDS_MAX} s"


class Dice:
    """Seeded: the same session again for the same seed."""

    def __init__(self, seed):
        self._random = random.Random(seed)

    def of(self, choices):
        return self._random.choice(choices)

    def bytes(self, most):
        return self._random.randbytes(self._random.randint(1, most))

    def chance(self, percent):
        return self._random.random() * 100 < percent
