"""PostgreSQL's protocol from the client's side, byte by byte: for what no driver would send, and for transcripts."""

import base64
import hashlib
import hmac
import secrets
import socket
import ssl
import struct

PROTOCOL_3_0 = 196608
SSL_REQUEST = 80877103
CANCEL_REQUEST = 80877102
SECONDS_MAX = 30


def message(tag, body=b""):
    return tag.encode() + struct.pack("!i", len(body) + 4) + body


def cstring(text):
    return text.encode() + b"\0"


def query(sql):
    return message("Q", cstring(sql))


def parse(sql, name="", oids=()):
    return message("P", cstring(name) + cstring(sql) + struct.pack(f"!h{len(oids)}i", len(oids), *oids))


def bind(portal="", statement="", values=(), result_formats=()):
    """Parameters in text, or None for NULL."""
    body = cstring(portal) + cstring(statement) + struct.pack("!hh", 0, len(values))
    for value in values:
        data = None if value is None else value.encode()
        body += struct.pack("!i", -1) if data is None else struct.pack("!i", len(data)) + data
    return message("B", body + struct.pack(f"!h{len(result_formats)}h", len(result_formats), *result_formats))


def describe(kind="P", name=""):
    return message("D", kind.encode() + cstring(name))


def execute(portal="", rows=0):
    return message("E", cstring(portal) + struct.pack("!i", rows))


def close(kind="S", name=""):
    return message("C", kind.encode() + cstring(name))


SYNC = message("S")
FLUSH = message("H")
TERMINATE = message("X")


def error_fields(body):
    """{"C": "42501", "M": ..., ...} of an ErrorResponse or NoticeResponse."""
    return {part[:1].decode(): part[1:].decode() for part in body.split(b"\0") if part}


class Closed(Exception):
    """The server ended the connection; `received` holds what came before."""


class Connection:
    """One connection; `messages` yields (tag, body). Every read has a deadline."""

    def __init__(self, host, port, ca=None, tls=True, direct=False, alpn=(), context=None):
        """`direct`: TLS without asking for it first. `context`: TLS settings of the test's own."""
        self.socket = socket.create_connection((host, port), timeout=SECONDS_MAX)
        self._buffer = b""
        self.parameters = {}
        self.backend = None
        self.offered_tls = None
        if ca is not None and tls:
            if not direct:
                self.socket.sendall(struct.pack("!ii", 8, SSL_REQUEST))
                self.offered_tls = self.socket.recv(1)
            context = context or ssl.create_default_context(cafile=str(ca))
            if alpn:
                context.set_alpn_protocols(list(alpn))
            self.socket = context.wrap_socket(self.socket, server_hostname=host)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *parts):
        self.socket.sendall(b"".join(parts))

    def startup(self, protocol=PROTOCOL_3_0, **parameters):
        body = b"".join(cstring(name) + cstring(value) for name, value in parameters.items()) + b"\0"
        self.send(struct.pack("!ii", len(body) + 8, protocol) + body)

    def _take(self, count):
        while len(self._buffer) < count:
            piece = self.socket.recv(65536)
            if not piece:
                raise Closed(f"the server closed the connection, {len(self._buffer)} bytes into a message")
            self._buffer += piece
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def receive(self):
        head = self._take(5)
        return head[:1].decode(), self._take(struct.unpack("!i", head[1:])[0] - 4)

    def receive_until(self, tag):
        """All messages up to and with the first of this tag."""
        seen = []
        while not seen or seen[-1][0] != tag:
            seen.append(self.receive())
        return seen

    def login(self, dsn, **parameters):
        """Startup and authentication, cleartext or SCRAM-SHA-256; returns self, ready for queries."""
        self.startup(user=dsn.user, database=dsn.dbname, **parameters)
        scram = None
        while True:
            tag, body = self.receive()
            if tag == "E":
                raise LoginRefused(error_fields(body))
            if tag == "S":
                name, value, _ = body.split(b"\0")
                self.parameters[name.decode()] = value.decode()
            elif tag == "K":
                self.backend = struct.unpack("!i", body[:4])[0], body[4:]
            elif tag == "Z":
                return self
            elif tag == "R":
                kind = struct.unpack("!i", body[:4])[0]
                if kind == 3:
                    self.send(message("p", cstring(dsn.password)))
                elif kind == 10:
                    scram = Scram(dsn.password)
                    first = scram.first()
                    self.send(sasl_initial("SCRAM-SHA-256", first))
                elif kind == 11:
                    self.send(message("p", scram.final(body[4:])))

    def cycle(self, *parts):
        """Sends, and returns everything up to ReadyForQuery."""
        self.send(*parts)
        return self.receive_until("Z")


class LoginRefused(Exception):
    """An ErrorResponse before ReadyForQuery; `fields` as PostgreSQL names them."""

    def __init__(self, fields):
        super().__init__(f"{fields.get('C')}: {fields.get('M')}")
        self.fields = fields


def sasl_initial(mechanism, data):
    return message("p", cstring(mechanism) + struct.pack("!i", len(data)) + data)


class Scram:
    """The client side of SCRAM-SHA-256. `header` and `bound` say what an honest or a meddled-with client would."""

    def __init__(self, password, header="n,,", bound=b""):
        self._password = password.encode()
        self._nonce = secrets.token_urlsafe(18)
        self._header = header
        self._bound = bound

    def first(self):
        return f"{self._header}n=,r={self._nonce}".encode()

    def final(self, server_first):
        parts = dict(part.split("=", 1) for part in server_first.decode().split(","))
        salted = hashlib.pbkdf2_hmac("sha256", self._password, base64.b64decode(parts["s"]), int(parts["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        channel = base64.b64encode(self._header.encode() + self._bound).decode()
        without_proof = f"c={channel},r={parts['r']}"
        signed = f"n=,r={self._nonce},{server_first.decode()},{without_proof}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()
