#!/usr/bin/env python3
"""What the gateway costs a query: pgbench select-only, direct against pgbouncer against Exeat, in one interleaved run.

    bench/point_reads.py [--scale 20] [--seconds 3] [--rounds 3] [--clients 1,16] [--modes simple,extended,prepared] [--json FILE]

Endpoints: `direct`; `pgbouncer` (session pooling, where installed); `pass` (Exeat, pass-through policy); `policy` (Exeat, a
policy with a sealed column that the statement does not touch); `masked` (the same, the statement returns that column).
Rounds are interleaved over the endpoints and the medians are shown, with each figure's ratio. CPU is user + system time of
the proxy's process from /proc per answered query: the figure to steer by. Throughput shares the machine's cores with client
and server. In simple mode every statement is a new text, in the others one text is seen again and again.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "e2e"))

from lib.dsn import Dsn, psql  # noqa: E402
from lib.gateway import PASS_THROUGH, REPOSITORY, Gateway, Trust, binary  # noqa: E402
from lib.postgres import SUPERUSER, Server  # noqa: E402
from lib.run import HarnessError, Run, end_on_signals, free_port, say, unprivileged_user, wait_until  # noqa: E402
from lib.yaml_text import dump  # noqa: E402

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
ROWS_PER_SCALE = 100_000
PLAIN = "SELECT abalance FROM pgbench_accounts WHERE aid = :aid;"
SEALED = "SELECT abalance, filler FROM pgbench_accounts WHERE aid = :aid;"
POLICY = dump({
    "version": 1,
    "labels": {"shop": {"filler": ["public.pgbench_accounts.filler"]}},
    "rules": [
        {"id": "read", "target": "shop", "allow": ["read"]},
        {"id": "mask", "target": "shop", "mask": {"filler": {"with": "redact"}}},
    ],
})


@dataclass
class Endpoint:
    name: str
    dsn: Dsn
    script: Path
    pid: int | None  # of the proxy; None for none


@dataclass
class Sample:
    per_second: float
    latency_us: float
    cpu_us: float | None
    percentiles: tuple | None = None


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=3, help="of each pgbench run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", default="1,16")
    parser.add_argument("--modes", default="simple,extended,prepared")
    parser.add_argument("--json", metavar="FILE", help="also write every sample")
    return parser.parse_args()


def pgbench_command():
    found = shutil.which("pgbench") or next(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"), reverse=True)), None)
    if found is None:
        raise HarnessError("pgbench is neither on PATH nor in /usr/lib/postgresql/*/bin; install postgresql-15, or run `make deps`")
    return found


def pgbouncer(run, server, user, password):
    """Session pooling before the same server; None where the program is not installed."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        say("pgbouncer is not installed: no figures for it (apt-get install pgbouncer)")
        return None
    port = free_port()
    config = run.path("pgbouncer.ini")
    config.write_text(
        f"[databases]\nbench = host=127.0.0.1 port={server.port} dbname=bench user={user} password={password}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        "pool_mode = session\nmax_client_conn = 500\ndefault_pool_size = 150\nlog_connections = 0\nlog_disconnections = 0\n"
        "ignore_startup_parameters = extra_float_digits\n"
    )
    config.chmod(0o600)
    if unprivileged_user() is not None:
        shutil.chown(config, unprivileged_user())
    process = run.spawn("pgbouncer", [program, config], run.path("pgbouncer.log"), user=unprivileged_user(), cwd="/")
    dsn = Dsn("127.0.0.1", port, user, password, "bench")
    wait_until("pgbouncer answers", lambda: psql(dsn, "SELECT 1", check=False).returncode == 0, alive=process)
    return dsn, process.pid


def endpoints(run, server, plain, sealed):
    trust = Trust(run)
    psql(server.admin("bench"), "CREATE ROLE bench LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO bench")
    password = server.set_password("bench")
    direct = server.dsn("bench", password, "bench")
    found = [Endpoint("direct", direct, plain, None)]
    bouncer = pgbouncer(run, server, "bench", password)
    if bouncer is not None:
        found.append(Endpoint("pgbouncer", bouncer[0], plain, bouncer[1]))
    token = trust.token("bench", ["agents"])
    gateways = {}
    for name, policy in (("pass", PASS_THROUGH), ("policy", POLICY)):
        gateway = Gateway(run, name).policy(policy).trust(trust.entry())
        gateways[name] = gateway.target(server, "bench", [{"user": "bench", "password": password}]).start(level="warn")
    found.append(Endpoint("pass", gateways["pass"].dsn(token), plain, gateways["pass"].process.pid))
    found.append(Endpoint("policy", gateways["policy"].dsn(token), plain, gateways["policy"].process.pid))
    found.append(Endpoint("masked", gateways["policy"].dsn(token), sealed, gateways["policy"].process.pid))
    return found


def cpu_seconds(pid):
    """User and system time of the whole process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def measure(endpoint, mode, clients, given, log_prefix=None):
    options = ["-l", f"--log-prefix={log_prefix}"] if log_prefix else []
    command = [
        pgbench_command(), "-n", "-M", mode, "-c", str(clients), "-j", str(min(clients, 2)), "-T", str(given.seconds),
        "-D", f"rows={given.scale * ROWS_PER_SCALE}", "-f", str(endpoint.script), *options,
    ]
    before = cpu_seconds(endpoint.pid) if endpoint.pid else 0
    done = subprocess.run(command, env=endpoint.dsn.environment(), capture_output=True, text=True, check=False)
    used = cpu_seconds(endpoint.pid) - before if endpoint.pid else None
    # A run that lost clients measured something else.
    failed = re.search(r"number of failed transactions: (\d+)", done.stdout)
    if done.returncode != 0 or "aborted" in done.stderr or (failed and int(failed[1]) > 0):
        raise HarnessError(f"pgbench on {endpoint.name} ({mode}, {clients} clients) failed: {done.stderr.strip()[:2000]}")
    count = int(re.search(r"transactions actually processed: (\d+)", done.stdout)[1])
    return Sample(
        per_second=float(re.search(r"tps = ([\d.]+)", done.stdout)[1]),
        latency_us=float(re.search(r"latency average = ([\d.]+) ms", done.stdout)[1]) * 1000,
        cpu_us=used / count * 1e6 if used is not None else None,
    )


def percentiles(endpoint, mode, clients, given, folder):
    """p50 and p99 in µs from pgbench's per-transaction log; a run of its own, because writing the log costs."""
    prefix = folder / f"{endpoint.name}-{clients}"
    measure(endpoint, mode, clients, given, prefix)
    times = sorted(
        int(line.split()[2]) for path in folder.glob(f"{prefix.name}*") for line in path.read_text().splitlines()
    )
    return times[len(times) // 2], times[len(times) * 99 // 100]


def median(samples, field):
    values = [getattr(sample, field) for sample in samples]
    return None if values[0] is None else statistics.median(values)


def table(results, found, modes, clients):
    reference = "pgbouncer" if any(endpoint.name == "pgbouncer" for endpoint in found) else None
    print("| mode | clients | endpoint | queries/s | of direct | CPU µs/query | of pgbouncer | added latency µs |")
    print("|---|---|---|---|---|---|---|---|")
    for mode in modes:
        for count in clients:
            direct = results[mode, count, "direct"]
            base = median(results[mode, count, reference], "cpu_us") if reference else None
            for endpoint in found:
                samples = results[mode, count, endpoint.name]
                rate, cpu = median(samples, "per_second"), median(samples, "cpu_us")
                share = rate / median(direct, "per_second")
                ratio = f"{cpu / base:.2f}" if cpu is not None and base else "–"
                added = median(samples, "latency_us") - median(direct, "latency_us")
                print(
                    f"| {mode} | {count} | {endpoint.name} | {rate:.0f} | {share:.2f} | {f'{cpu:.1f}' if cpu is not None else '–'} "
                    f"| {ratio} | {'–' if endpoint.name == 'direct' else f'{added:.0f}'} |"
                )


def latency_table(run, found, clients, given):
    print("\n| clients | endpoint (prepared) | p50 µs | p99 µs | added p50 | added p99 |")
    print("|---|---|---|---|---|---|")
    folder = run.path("latency")
    folder.mkdir()
    for count in clients:
        base = None
        for endpoint in found:
            p50, p99 = percentiles(endpoint, "prepared", count, given, folder)
            base = base or (p50, p99)
            print(f"| {count} | {endpoint.name} | {p50} | {p99} | {p50 - base[0]} | {p99 - base[1]} |", flush=True)


def build_measured(path, given_by_hand):
    """What the figures are of. A binary handed in says nothing of its commit: the checkout's would be a guess."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    if given_by_hand:
        return f"binary of EXEAT_BIN (sha256 {digest}), commit not known"
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )
    return f"commit {described.stdout.strip() or 'unknown'} (binary sha256 {digest})"


def bench(run, given):
    modes, clients = given.modes.split(","), [int(count) for count in given.clients.split(",")]
    server = Server(run, settings={"shared_buffers": "1GB", "wal_level": "replica", "autovacuum": "off"})
    admin = server.create_database("bench")
    say(f"loading pgbench tables at scale {given.scale}")
    subprocess.run(
        [pgbench_command(), "-i", "-q", "-s", str(given.scale)], env=admin.environment(), check=True, capture_output=True,
    )
    scripts = []
    for name, sql in (("plain", PLAIN), ("sealed", SEALED)):
        path = run.path(f"{name}.sql")
        path.write_text(f"\\set aid random(1, :rows)\n{sql}\n")
        scripts.append(path)
    found = endpoints(run, server, *scripts)
    results = {(mode, count, endpoint.name): [] for mode in modes for count in clients for endpoint in found}
    for turn in range(given.rounds):
        for mode in modes:
            for count in clients:
                say(f"round {turn + 1} of {given.rounds}: {mode}, {count} clients")
                for endpoint in found:
                    results[mode, count, endpoint.name].append(measure(endpoint, mode, count, given))
    version = psql(server.admin(), "SHOW server_version").stdout.strip()
    print(
        f"{given.build}, PostgreSQL {version}, {os.cpu_count()} cores shared by all, scale {given.scale}, "
        f"medians of {given.rounds} interleaved rounds of {given.seconds} s, loopback without TLS, token login, records durability os\n"
    )
    table(results, found, modes, clients)
    latency_table(run, found, clients, given)
    if given.json:
        flat = [{"mode": m, "clients": c, "endpoint": n, "samples": [vars(s) for s in v]} for (m, c, n), v in results.items()]
        Path(given.json).write_text(json.dumps(flat, indent=1) + "\n")


def main():
    given = arguments()
    end_on_signals()
    try:
        by_hand = bool(os.environ.get("EXEAT_BIN"))
        path = binary(release=True)
        given.build = build_measured(path, by_hand)
        say(f"measuring {given.build}")
        os.environ["EXEAT_BIN"] = str(path)
        with Run() as run:
            bench(run, given)
    except (HarnessError, OSError, subprocess.CalledProcessError) as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
