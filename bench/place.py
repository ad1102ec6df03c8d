"""What is measured: one PostgreSQL, and the roads to it: direct, through pgbouncer, through Exeat in several forms."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from lib.certificates import Authority
from lib.dsn import Dsn, psql
from lib.gateway import PASS_THROUGH, Gateway, Trust
from lib.postgres import Server
from lib.run import Child, HarnessError, free_port, say, unprivileged_user, wait_until
from lib.yaml_text import dump

DATABASE = "bench"
# Nothing in a benchmark may meet a limit.
ROOM = 5000
LABELS = {"shop": {"filler": ["public.pgbench_accounts.filler"], "secret": ["public.bulk.s1", "public.bulk.s2"]}}
RULES = [
    {"id": "read", "target": "shop", "allow": ["read"]},
    {"id": "mask", "target": "shop", "mask": {"filler": {"with": "redact"}, "secret": {"with": "redact"}}},
]
POLICY = dump({"version": 1, "labels": LABELS, "rules": RULES})
# Every row of a labelled relation is on the ledger before it leaves; nothing comes near the limit.
COUNTED = dump({"version": 1, "labels": LABELS, "rules": [*RULES, {"id": "count", "target": "shop", "limit": {"rows": 10**12}}]})


@dataclass
class Endpoint:
    """`process`: of the proxy, None for none. `sealed`: the statement returns sealed columns."""

    name: str
    dsn: Dsn
    process: Child | None
    sealed: bool = False

    @property
    def pid(self):
        return self.process and self.process.pid


class Place:
    def __init__(self, run, given):
        self.run = run
        self.durability = given.durability
        self.server = Server(run, settings={
            "shared_buffers": "1GB", "wal_level": "replica", "autovacuum": "off", "max_wal_senders": "0",
            "max_connections": str(given.sessions + 200), "max_wal_size": "4GB",
        })
        self.admin = self.server.create_database(DATABASE)
        self.trust = Trust(run)
        self.token = self.trust.token("bench", ["agents"])
        self.authority = Authority(run.path("authority"))
        self.version = psql(self.admin, "SHOW server_version").stdout.strip()
        psql(self.admin, "CREATE ROLE bench LOGIN; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO bench")
        self.password = self.server.set_password("bench")
        self.direct = Endpoint("direct", self.server.dsn("bench", self.password, DATABASE), None)

    def roads(self):
        """The endpoints of the throughput tables, in the order they take turns."""
        found = [self.direct]
        bouncer = self.pgbouncer("pgbouncer")
        if bouncer is not None:
            found.append(bouncer)
        found.append(self.gateway("pass", PASS_THROUGH))
        policy = self.gateway("policy", POLICY)
        masked = Endpoint("masked", policy.dsn, policy.process, sealed=True)
        unkept = self.gateway("unkept", POLICY, results={"rows": 0, "bytes": "0B"})
        unkept.sealed = True
        synced = self.gateway("synced", POLICY, durability="fsync")
        synced.sealed = True
        return [*found, policy, masked, unkept, synced, self.gateway("counted", COUNTED)]

    def gateway(self, name, policy, tls=False, **audit):
        gateway = Gateway(self.run, name).policy(policy).trust(self.trust.entry())
        gateway.config["listen"]["postgres"]["limits"] = {"connections": ROOM, "per_principal": ROOM, "per_source": ROOM}
        gateway.config["audit"] = {"durability": self.durability, **audit}
        if tls:
            gateway.listen_tls(self.authority)
        gateway.target(self.server, DATABASE, [{"user": "bench", "password": self.password}]).start(level="warn")
        return Endpoint(name, gateway.dsn(self.token), gateway.process)

    def pgbouncer(self, name, tls=False, fresh=False):
        """Session pooling before the same server; None where the program is not installed. `fresh`: a server connection
        is used by one client and closed, as Exeat does."""
        program = pgbouncer_command()
        if program is None:
            return None
        port = free_port()
        user = unprivileged_user()
        pair = self.authority.issue(f"{name}-listener")
        folder = self.run.path(name)
        folder.mkdir()
        files = [folder]
        for source, file in ((pair.cert, "server.crt"), (pair.key, "server.key")):
            files.append(Path(shutil.copy(source, folder / file)))
        config = folder / "pgbouncer.ini"
        config.write_text(
            f"[databases]\n{DATABASE} = host=127.0.0.1 port={self.server.port} dbname={DATABASE} user=bench password={self.password}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = session\nmax_client_conn = {ROOM}\ndefault_pool_size = {ROOM}\nlisten_backlog = 1024\n"
            f"server_lifetime = {0 if fresh else 3600}\n"
            "log_connections = 0\nlog_disconnections = 0\nignore_startup_parameters = extra_float_digits\n"
            f"client_tls_sslmode = allow\nclient_tls_cert_file = {folder}/server.crt\nclient_tls_key_file = {folder}/server.key\n"
        )
        config.chmod(0o600)
        if user is not None:
            for path in [*files, config]:
                shutil.chown(path, user)
        process = self.run.spawn(name, [program, config], self.run.path(f"{name}.log"), user=user, cwd="/")
        plain = Dsn("127.0.0.1", port, "bench", self.password, DATABASE)
        dsn = plain.with_(host="localhost", sslmode="verify-full", sslrootcert=str(self.authority.cert)) if tls else plain
        wait_until(f"{name} answers", lambda: psql(dsn, "SELECT 1", check=False).returncode == 0, alive=process)
        return Endpoint(name, dsn, process)

    def sessions(self):
        """How many the server has, whoever holds them."""
        return int(psql(self.admin, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'").stdout)

    def end(self, endpoint, sessions):
        """Ends the proxy, and waits until the server has no more than so many sessions."""
        endpoint.process.stop()
        self.run.forget(endpoint.process)
        wait_until(f"the sessions of {endpoint.name} have left the server", lambda: self.sessions() <= sessions, seconds=120)


def pgbouncer_command():
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if found is None:
        say("pgbouncer is not installed: no figures for it (apt-get install pgbouncer)")
    return found


def pgbench_command():
    found = shutil.which("pgbench") or next(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"), reverse=True)), None)
    if found is None:
        raise HarnessError("pgbench is neither on PATH nor in /usr/lib/postgresql/*/bin; install postgresql-15, or run `make deps`")
    return found
