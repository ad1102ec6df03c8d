"""Point reads: pgbench select-only by primary key, in three modes. In simple mode every statement is a new text."""

import re
import subprocess

from figures import REFERENCE, cpu_seconds, median, ratio, shown, table
from lib.run import HarnessError, say
from place import pgbench_command

ROWS_PER_SCALE = 100_000
PLAIN = "SELECT abalance FROM pgbench_accounts WHERE aid = :aid;"
SEALED = "SELECT abalance, filler FROM pgbench_accounts WHERE aid = :aid;"


def load_tables(place, given):
    say(f"loading pgbench tables at scale {given.scale}")
    subprocess.run(
        [pgbench_command(), "-i", "-q", "-s", str(given.scale)], env=place.admin.environment(), check=True, capture_output=True,
    )


def pgbench(endpoint, script, mode, clients, options):
    """One run: queries a second, mean latency, the proxy's CPU a query."""
    command = [
        pgbench_command(), "-n", "-M", mode, "-c", str(clients), "-j", str(min(clients, 2)), "-f", str(script), *map(str, options),
    ]
    before = cpu_seconds(endpoint.pid)
    done = subprocess.run(command, env=endpoint.dsn.environment(), capture_output=True, text=True, check=False)
    used = cpu_seconds(endpoint.pid) - before
    # A run that lost clients measured something else.
    failed = re.search(r"number of failed transactions: (\d+)", done.stdout)
    if done.returncode != 0 or "aborted" in done.stderr or (failed and int(failed[1]) > 0):
        raise HarnessError(f"pgbench on {endpoint.name} ({mode}, {clients} clients) failed: {done.stderr.strip()[:2000]}")
    count = int(re.search(r"transactions actually processed: (\d+)", done.stdout)[1])
    return {
        "per_second": float(re.search(r"tps = ([\d.]+)", done.stdout)[1]),
        "latency_us": float(re.search(r"latency average = ([\d.]+) ms", done.stdout)[1]) * 1000,
        "cpu_us": used / count * 1e6 if endpoint.pid else None,
    }


class Points:
    title = "Point reads"

    def __init__(self, place, found, given):
        self.found = found
        self.given = given
        self.folder = place.run.path("points")
        self.folder.mkdir()
        self.scripts = {}
        for sealed, sql in ((False, PLAIN), (True, SEALED)):
            self.scripts[sealed] = self.folder / f"{sealed}.sql"
            self.scripts[sealed].write_text(f"\\set aid random(1, :rows)\n{sql}\n")
        self.cells = [(mode, count) for mode in given.modes for count in given.clients]
        self.results = {(*cell, endpoint.name): [] for cell in self.cells for endpoint in found}

    def round(self):
        for mode, count in self.cells:
            say(f"  {mode}, {count} clients")
            for endpoint in self.found:
                self.results[mode, count, endpoint.name].append(self.measure(endpoint, mode, count))

    def measure(self, endpoint, mode, count, options=()):
        options = ["-T", self.given.seconds, "-D", f"rows={self.given.scale * ROWS_PER_SCALE}", *options]
        return pgbench(endpoint, self.scripts[endpoint.sealed], mode, count, options)

    def report(self):
        rows = []
        for mode, count in self.cells:
            direct = self.results[mode, count, "direct"]
            base = self.results.get((mode, count, REFERENCE))
            for endpoint in self.found:
                samples = self.results[mode, count, endpoint.name]
                rate, cpu = median(samples, "per_second"), median(samples, "cpu_us")
                added = median(samples, "latency_us") - median(direct, "latency_us")
                rows.append([
                    mode, count, endpoint.name, f"{rate:.0f}", ratio(rate, median(direct, "per_second")), shown(cpu),
                    ratio(cpu, base and median(base, "cpu_us")), ratio(rate, base and median(base, "per_second")),
                    "–" if endpoint.pid is None else f"{added:.0f}",
                ])
        header = ["mode", "clients", "endpoint", "queries/s", "of direct", "CPU µs/query", "CPU to pgbouncer", "queries/s to pgbouncer", "added latency µs"]
        table(header, rows)

    def report_latency(self):
        """p50 and p99 from pgbench's log of each transaction; runs of their own, because writing the log costs."""
        rows = []
        for count in self.given.clients:
            base = None
            for endpoint in self.found:
                prefix = self.folder / f"latency-{endpoint.name}-{count}"
                self.measure(endpoint, "prepared", count, ["-l", f"--log-prefix={prefix}"])
                logs = [path.read_text().splitlines() for path in self.folder.glob(f"{prefix.name}.*")]
                times = sorted(int(line.split()[2]) for lines in logs for line in lines)
                p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
                base = base or (p50, p99)
                rows.append([count, endpoint.name, p50, p99, p50 - base[0], p99 - base[1]])
        table(["clients", "endpoint (prepared)", "p50 µs", "p99 µs", "added p50", "added p99"], rows)
