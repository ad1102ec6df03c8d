"""Memory of idle sessions: a fresh process, a hundred sessions to warm it, then as many more as asked for, each with one
answered query. What the process grew by, divided by them."""

from figures import memory_kib, table
from lib import wire
from lib.gateway import PASS_THROUGH
from lib.run import say

WARM = 100


def connected(endpoint):
    ca = endpoint.dsn.sslrootcert
    connection = wire.Connection(endpoint.dsn.host, endpoint.dsn.port, ca)
    connection.login(endpoint.dsn)
    connection.cycle(wire.query("SELECT 1"))
    return connection


def grown(endpoint, count):
    """KiB a session."""
    held = [connected(endpoint) for _ in range(WARM)]
    before = memory_kib(endpoint.pid, "VmRSS")
    held += [connected(endpoint) for _ in range(count)]
    after = memory_kib(endpoint.pid, "VmRSS")
    for connection in held:
        connection.send(wire.TERMINATE)
        connection.socket.close()
    return (after - before) / count


def report(place, given):
    rows = []
    for title, tls in (("plain", False), ("TLS", True)):
        for name, start in (("pgbouncer", lambda n: place.pgbouncer(n, tls)), ("pass", lambda n: place.gateway(n, PASS_THROUGH, tls))):
            sessions = place.sessions()
            endpoint = start(f"idle-{name}-{title.lower()}")
            if endpoint is None:
                continue
            say(f"  {given.sessions} idle sessions, {name}, {title}")
            rows.append([name, title, given.sessions, f"{grown(endpoint, given.sessions):.1f}"])
            place.end(endpoint, sessions)
    table(["endpoint", "client side", "sessions", "KiB a session"], rows)
