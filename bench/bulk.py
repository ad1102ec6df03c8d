"""Bulk: one result of millions of rows, by SELECT and by COPY. The client only counts bytes, so that it never is the
slowest of the three."""

import time

from figures import REFERENCE, cpu_seconds, forget_peak, median, memory_kib, ratio, shown, table
from lib import wire
from lib.dsn import psql
from lib.run import HarnessError, say

# Eight columns, 180 bytes a row as the protocol carries it; s1 and s2 are sealed where a policy says so.
COLUMNS = "id, c1, c2, c3, c4, c5, {}, {}"
PLAIN, SEALED = COLUMNS.format("c6", "c7"), COLUMNS.format("s1", "s2")
CHUNK = 1024 * 1024
END = b"Z\0\0\0\5I"


def load_table(place, given):
    say(f"loading {given.rows} rows for the bulk read")
    texts = ", ".join(f"lpad((n * {k})::text, 19, 'abcdefghij') AS {name}" for k, name in enumerate("c1 c2 c3 c4 c5 c6 c7 s1 s2".split(), 3))
    for sql in (f"CREATE UNLOGGED TABLE bulk AS SELECT n AS id, {texts} FROM generate_series(1, {given.rows}) n", "VACUUM ANALYZE bulk"):
        psql(place.admin, sql)


def drain(connection, sql):
    """Bytes up to the ReadyForQuery, which the text of no row here looks like."""
    connection.send(wire.query(sql))
    buffer, count, tail = memoryview(bytearray(CHUNK)), 0, b""
    while tail != END:
        read = connection.socket.recv_into(buffer)
        if read == 0:
            raise HarnessError("the connection closed in the middle of a bulk read")
        count += read
        tail = (tail + bytes(buffer[max(0, read - len(END)):read]))[-len(END):]
    return count


class Bulk:
    title = "Bulk reads"

    def __init__(self, place, found, given):
        self.given = given
        read = "SELECT {} FROM bulk"
        self.cells = [("SELECT", endpoint, read) for endpoint in found]
        # COPY of sealed columns is refused: there is nothing to measure.
        self.cells += [("COPY", endpoint, "COPY (SELECT {} FROM bulk) TO STDOUT") for endpoint in found if not endpoint.sealed]
        self.results = {(kind, endpoint.name): [] for kind, endpoint, _ in self.cells}

    def round(self):
        for kind, endpoint, sql in self.cells:
            say(f"  {kind} of {self.given.rows} rows, {endpoint.name}")
            self.results[kind, endpoint.name].append(self.measure(endpoint, sql))

    def measure(self, endpoint, sql):
        with wire.Connection(endpoint.dsn.host, endpoint.dsn.port) as connection:
            connection.login(endpoint.dsn)
            if endpoint.pid:
                forget_peak(endpoint.pid)
            before, started = cpu_seconds(endpoint.pid), time.monotonic()
            count = drain(connection, sql.format(SEALED if endpoint.sealed else PLAIN))
            elapsed, used = time.monotonic() - started, cpu_seconds(endpoint.pid) - before
            if count < self.given.rows * 100:
                raise HarnessError(f"{endpoint.name} answered {sql!r} with {count} bytes")
            return {
                "rows": self.given.rows / elapsed,
                "bytes": count / self.given.rows,
                "cpu": used / self.given.rows * 1e6 if endpoint.pid else None,
                "peak": memory_kib(endpoint.pid, "VmHWM") / 1024 if endpoint.pid else None,
            }

    def report(self):
        rows = []
        for kind, endpoint, _ in self.cells:
            samples = self.results[kind, endpoint.name]
            direct, base = self.results[kind, "direct"], self.results.get((kind, REFERENCE))
            rate, cpu = median(samples, "rows"), median(samples, "cpu")
            rows.append([
                kind, endpoint.name, f"{median(samples, 'bytes'):.0f}", f"{rate / 1e6:.2f}", ratio(rate, median(direct, "rows")),
                shown(cpu, 2), ratio(cpu, base and median(base, "cpu")), shown(median(samples, "peak")),
            ])
        header = ["read", "endpoint", "bytes/row", "million rows/s", "of direct", "CPU s/million rows", "CPU to pgbouncer", "peak memory MiB"]
        table(header, rows)
