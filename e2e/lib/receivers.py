"""Receivers of exports: syslog over TCP, TLS and UDP, and HTTP. Each can be closed for a while and opened again on its port."""

import json
import re
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .gate import cut

MESSAGE = re.compile(
    r'<(?P<pri>\d+)>1 (?P<time>\S+Z) (?P<host>\S+) exeat - (?P<msgid>\S+) \[exeat@32473(?P<sd>(?: \w+="(?:[^"\\\]]|\\.)*")*)\] (?P<text>\{.*\})',
    re.DOTALL,
)


def parsed(message):
    """An RFC 5424 message as a dict; its structured data must say what the line says."""
    found = MESSAGE.fullmatch(message.decode())
    assert found, message
    event = json.loads(found["text"])
    data = dict(re.findall(r' (\w+)="((?:[^"\\\]]|\\.)*)"', found["sd"]))
    assert data["type"] == event["type"] == found["msgid"] and data.get("session") == event.get("session")
    assert data.get("seq") == (str(event["seq"]) if "seq" in event else None) and found["time"] == event["time"]
    return {**found.groupdict(), "event": event}


class Receiver:
    """Keeps the texts that it was told, in order."""

    def __init__(self):
        self.port = 0
        self.texts = []
        self.lock = threading.Lock()

    def take(self, texts):
        with self.lock:
            self.texts += texts

    def told(self):
        with self.lock:
            return list(self.texts)

    def lines(self):
        """Lines of the record as they were told, without those that were told again."""
        told = [text for text in self.told() if "seq" in json.loads(text)]
        return list(dict.fromkeys(told))

    def checkpoints(self):
        return [json.loads(text)["body"] for text in self.told() if json.loads(text)["type"] == "checkpoint"]


class SyslogReceiver(Receiver):
    def __init__(self, pair=None):
        super().__init__()
        self._context = None
        if pair is not None:
            self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._context.load_cert_chain(pair.cert, pair.key)
        self._ends = []
        self.open()

    def open(self):
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._accepting.start()

    def close(self):
        # Nobody comes behind this.
        cut(self._listener)
        self._accepting.join()
        self._listener.close()
        with self.lock:
            ends, self._ends = self._ends, []
        for end in ends:
            cut(end)

    def _accept(self, listener):
        while True:
            try:
                end, _ = listener.accept()
            except OSError:
                return
            try:
                if self._context is not None:
                    end = self._context.wrap_socket(end, server_side=True, do_handshake_on_connect=False)
            except OSError:
                continue
            with self.lock:
                self._ends.append(end)
            threading.Thread(target=self._read, args=(end,), daemon=True).start()

    def _read(self, end):
        try:
            if self._context is not None:
                end.do_handshake()
            held = b""
            while piece := end.recv(65536):
                held += piece
                while (space := held.find(b" ")) > 0 and len(held) > space + int(held[:space]):
                    size = space + 1 + int(held[:space])
                    self.take([parsed(held[space + 1:size])["text"]])
                    held = held[size:]
        except OSError:
            pass
        end.close()


class DatagramReceiver(Receiver):
    def __init__(self):
        super().__init__()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        while True:
            message = self._socket.recv(65536)
            if not message:
                return
            self.take([parsed(message)["text"]])

    def close(self):
        # It wakes without a peer too, and says that it has none.
        cut(self._socket)
        self._thread.join()
        self._socket.close()


class HttpReceiver(Receiver):
    """`texts_of` reads a body; `requests` keeps path and Authorization of each that was taken."""

    def __init__(self, texts_of):
        super().__init__()
        self.requests = []
        self.refuses = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not outer.refuses:
                    outer.requests.append((self.path, self.headers["Authorization"]))
                    outer.take(texts_of(body))
                self.send_response(503 if outer.refuses else 200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self._handler = Handler
        self.open()

    def open(self):
        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
