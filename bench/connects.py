"""Connections: connect, log in and get one answer, again and again (pgbench -C). Exeat verifies a token and logs in to the
server each time; `pgbouncer-login` does the latter too, where `pgbouncer` hands out a server connection it has."""

from figures import REFERENCE, median, ratio, shown, table
from lib.gateway import PASS_THROUGH
from lib.run import say
from points import pgbench

CLIENTS = 4


class Connects:
    title = "Connections"

    def __init__(self, place, found, given):
        self.given = given
        self.script = place.run.path("connect.sql")
        self.script.write_text("SELECT 1;\n")
        self.found = [endpoint for endpoint in found if not endpoint.sealed]
        more = (
            place.pgbouncer(f"{REFERENCE}-login", fresh=True),
            place.pgbouncer(f"{REFERENCE}-login-tls", tls=True, fresh=True),
            place.gateway("pass-tls", PASS_THROUGH, tls=True),
        )
        self.found += [road for road in more if road]
        self.results = {endpoint.name: [] for endpoint in self.found}

    def round(self):
        for endpoint in self.found:
            say(f"  connecting, {endpoint.name}")
            self.results[endpoint.name].append(pgbench(endpoint, self.script, "simple", CLIENTS, ["-C", "-T", self.given.seconds]))

    def report(self):
        rows = []
        for endpoint in self.found:
            samples = self.results[endpoint.name]
            # Each beside the pgbouncer that does as it does.
            base = self.results.get(f"{REFERENCE}-login-tls" if endpoint.name.endswith("-tls") else f"{REFERENCE}-login")
            rate, cpu = median(samples, "per_second"), median(samples, "cpu_us")
            rows.append([
                endpoint.name, f"{rate:.0f}", ratio(rate, median(self.results["direct"], "per_second")),
                shown(cpu and cpu / 1000, 2), ratio(cpu, base and median(base, "cpu_us")),
                ratio(base and median(base, "per_second"), rate),
            ])
        header = ["endpoint", "connections/s", "of direct", "CPU ms/connection", "CPU to pgbouncer-login", "time to pgbouncer-login"]
        table(header, rows)
