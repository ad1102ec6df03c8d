"""A port in front of a server that can be closed for a while: connections are then cut and refused."""

import socket
import threading

PIECE_BYTES_MAX = 65536


def cut(end):
    """Whoever waits in it wakes. It is not closed under a thread: its number would be another socket's by then."""
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


class Gate:
    def __init__(self, port):
        self._upstream = port
        self._listener = None
        self._ends = []
        self._lock = threading.Lock()
        self.port = 0
        self.open()

    def open(self):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._accepting = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        self._accepting.start()
        return self

    def close(self):
        # Nobody comes behind this.
        cut(self._listener)
        self._accepting.join()
        self._listener.close()
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            cut(end)

    def _accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._upstream))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._ends += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def _copy(source, sink):
        try:
            while piece := source.recv(PIECE_BYTES_MAX):
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass
