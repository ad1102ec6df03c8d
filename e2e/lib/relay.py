"""A listener that passes bytes on and keeps a copy of each direction: what a client really got, past any driver."""

import socket
import threading

from .gate import cut

PIECE_BYTES_MAX = 65536


class Relay:
    """Use as a context manager; connect clients to `port`. `piece_bytes`: as much is passed on at once."""

    def __init__(self, port, piece_bytes=PIECE_BYTES_MAX):
        self._upstream = port
        self._piece_bytes = piece_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._pieces = {"to_client": {}, "to_server": {}}
        self._names = {}
        self._threads = []
        self._sockets = []

    def __enter__(self):
        return self.open()

    def open(self):
        """For as long as the process lives."""
        self._start(self._accept)
        return self

    def __exit__(self, *_):
        ends = [self._listener, *self._sockets]
        for end in ends:
            cut(end)
        for thread in self._threads:
            thread.join(timeout=10)
        for end in ends:
            end.close()

    def bytes(self, direction):
        """Everything so far, connection by connection."""
        with self._lock:
            return b"\n".join(b"".join(pieces) for pieces in self._pieces[direction].values())

    def answers(self):
        """What each connection's client got so far, by the address that the other side saw it come from."""
        with self._lock:
            return {name: b"".join(self._pieces["to_client"].get(end, [])) for end, name in self._names.items()}

    def _start(self, target, *arguments):
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._upstream))
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [client, server]
            host, port = server.getsockname()[:2]
            with self._lock:
                self._names[server] = f"{host}:{port}"
            self._start(self._copy, client, server, "to_server")
            self._start(self._copy, server, client, "to_client")

    def _copy(self, source, sink, direction):
        try:
            while piece := source.recv(self._piece_bytes):
                with self._lock:
                    self._pieces[direction].setdefault(source, []).append(piece)
                sink.sendall(piece)
        except OSError:
            pass
        try:
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass
