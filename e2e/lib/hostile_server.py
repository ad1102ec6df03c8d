"""A server that lies: a listener before a real PostgreSQL that passes everything on until it is told to lie.

A `Lie` names the bytes of the gateway that set it off (a comment in a statement, a text of the gateway's own) and what
is said from then on in the server's place. The subject of these tests is the gateway's reaction, so the liar is ours.
"""

import socket
import struct
import threading
import time

from . import wire
from .gate import cut

SECONDS_MAX = 60
PIECE_BYTES = 65536


class Left(Exception):
    """The gateway closed the connection."""


class Lie:
    """`script(seat)` speaks for the server, on every connection that says `trigger`, at once if there is none.

    `apart`: it may go on for long, and is not among those that are waited for.
    """

    def __init__(self, script, trigger=None, apart=False):
        self.script = script
        self.trigger = trigger
        self.apart = apart


class Seat:
    """The server's place in one connection, once it is the liar's. `heard`: what set the lie off."""

    def __init__(self, peer, heard, rest):
        self.socket = peer
        self._buffer = rest
        self.heard = heard

    def say(self, *parts):
        try:
            self.socket.sendall(b"".join(parts))
        except OSError:
            raise Left from None

    def hear(self):
        """The gateway's next message, as (tag, body)."""
        while True:
            frame, self._buffer = first_frame(self._buffer)
            if frame is not None:
                return frame[:1].decode(), frame[5:]
            self._more()

    def hear_until(self, tag):
        while self.hear()[0] != tag:
            pass

    def _more(self):
        try:
            piece = self.socket.recv(PIECE_BYTES)
        except OSError:
            raise Left from None
        if not piece:
            raise Left
        self._buffer += piece

    def stall(self):
        """Says nothing more, and waits for the gateway to give up."""
        while True:
            self._more()

    def flood(self, piece, most=None):
        """The same bytes until the gateway leaves, or up to so many."""
        said = 0
        while most is None or said < most:
            self.say(piece)
            said += len(piece)


class Liar:
    """Use as a context manager; point the gateway's target at `port`. `told`: how often it has begun to lie."""

    def __init__(self, real_port):
        self._real = real_port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self.lie = None
        self.told = 0
        self._threads = []
        self._lock = threading.Lock()
        self._open = set()
        self._lying = set()

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *_):
        cut(self._listener)
        for end in list(self._open):
            cut(end)
        for thread in self._threads:
            thread.join(timeout=10)

    def tells(self, script, trigger=None, apart=False):
        self.lie = Lie(script, trigger, apart)
        return self

    def is_honest(self):
        self.lie = None

    def lies_open(self):
        """Connections the liar sits in that the gateway has not ended yet."""
        with self._lock:
            return len(self._lying)

    def _start(self, target, *arguments):
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                gateway, _ = self._listener.accept()
            except OSError:
                return
            gateway.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(gateway)
            self._start(self._serve, gateway)

    def _serve(self, gateway):
        """From the gateway to the server, message by message."""
        real = socket.create_connection(("127.0.0.1", self._real))
        real.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ours = threading.Event()
        self._start(copy_until, real, gateway, ours)
        try:
            packet, rest = read_startup(gateway)
            lie = self.lie
            if lie is not None and lie.trigger is None:
                return self._take_over(lie, real, ours, Seat(gateway, packet, rest))
            real.sendall(packet)
            while True:
                frame, rest = first_frame(rest)
                if frame is None:
                    piece = gateway.recv(PIECE_BYTES)
                    if not piece:
                        return None
                    rest += piece
                elif (lie := self.lie) is not None and lie.trigger is not None and lie.trigger in frame:
                    return self._take_over(lie, real, ours, Seat(gateway, frame, rest))
                else:
                    real.sendall(frame)
        except (OSError, Left):
            return None
        finally:
            cut(real)
            cut(gateway)
            with self._lock:
                self._open.discard(gateway)

    def _take_over(self, lie, real, ours, seat):
        # Said before the server's connection ends: who copies from it would end the gateway's with it.
        ours.set()
        cut(real)
        with self._lock:
            self.told += 1
            if not lie.apart:
                self._lying.add(seat.socket)
        try:
            lie.script(seat)
        except Left:
            pass
        finally:
            with self._lock:
                self._lying.discard(seat.socket)


def copy_until(source, sink, taken_over):
    """From the server to the gateway, as it comes."""
    try:
        while piece := source.recv(PIECE_BYTES):
            if taken_over.is_set():
                return
            sink.sendall(piece)
    except OSError:
        pass
    if not taken_over.is_set():
        cut(sink)


def read_startup(peer):
    buffer = b""
    deadline = time.monotonic() + SECONDS_MAX
    while len(buffer) < 4 or len(buffer) < struct.unpack("!i", buffer[:4])[0]:
        piece = peer.recv(PIECE_BYTES)
        if not piece or time.monotonic() > deadline:
            raise Left
        buffer += piece
    length = struct.unpack("!i", buffer[:4])[0]
    return buffer[:length], buffer[length:]


def first_frame(buffer):
    """(frame or None, the rest)."""
    if len(buffer) < 5:
        return None, buffer
    length = 1 + struct.unpack("!i", buffer[1:5])[0]
    return (buffer[:length], buffer[length:]) if len(buffer) >= length else (None, buffer)


# What a server says.

AUTHENTICATED = wire.message("R", struct.pack("!i", 0))
READY = wire.message("Z", b"I")
KEY = wire.message("K", struct.pack("!ii", 4711, 815))
PARSED, BOUND, NO_DATA = wire.message("1"), wire.message("2"), wire.message("n")


def status(name, value):
    return wire.message("S", wire.cstring(name) + wire.cstring(value))


def field(name, table=0, attribute=0, kind=25, form=0):
    return wire.cstring(name) + struct.pack("!ihihih", table, attribute, kind, -1, -1, form)


def description(*fields):
    return wire.message("T", struct.pack("!H", len(fields)) + b"".join(fields))


def row(*values):
    cells = b"".join(struct.pack("!i", len(value)) + value for value in values)
    return wire.message("D", struct.pack("!H", len(values)) + cells)


def complete(tag="SELECT 1"):
    return wire.message("C", wire.cstring(tag))


def error(text, severity="ERROR", code="XX000", kind="E", **more):
    fields = {"S": severity, "V": severity, "C": code, "M": text, **more}
    return wire.message(kind, b"".join(name.encode() + wire.cstring(value) for name, value in fields.items()) + b"\0")


# A login as a server without a password would have it, for gateways on the same machine.
WELCOME = AUTHENTICATED + b"".join(
    status(name, value)
    for name, value in {
        "server_version": "15.14", "client_encoding": "UTF8", "server_encoding": "UTF8", "is_superuser": "off",
        "standard_conforming_strings": "on", "TimeZone": "UTC", "DateStyle": "ISO, MDY", "integer_datetimes": "on",
    }.items()
) + KEY + READY
