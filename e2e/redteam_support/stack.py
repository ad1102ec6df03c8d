"""The servers of a red-team run: a PostgreSQL that helps the attacker, and the gateway before it.

The server lets everybody on this machine in without a password: an attack that reaches a second connection must not
fail for want of one. Nothing in it is worth a password, and none stands on a command line.
"""

import shutil
import subprocess

from lib.dsn import Dsn
from lib.gateway import Gateway, Trust, binary
from lib.postgres import SUPERUSER, Server
from lib.relay import Relay
from lib.run import HarnessError, say, unprivileged_user, wait_until

from . import policy

# What the corpus's cases need of a server so that none is skipped.
SETTINGS = {
    "wal_level": "logical",
    "max_prepared_transactions": "10",
    "shared_preload_libraries": "pg_stat_statements",
}
# Cases log in with roles and tokens of their own making, as often as they like.
LIMITS = {"failed_logins": "1000/min", "per_principal": 1000}
NO_RESET = ":"
# Who resets; no case has a token of this group.
OPERATORS = "redteam-operators"
TOKEN_TTL = "24h"


class Stack:
    """Server, gateway and the runner's ways to both."""

    def __init__(self, run, corpus, given):
        self.run = run
        self.role = SUPERUSER if given.role == "superuser" else given.role
        self.server = Server(run, given.pg, settings=SETTINGS, auth="trust")
        self.server_tmp = run.path("server-tmp")
        self.server_tmp.mkdir()
        if unprivileged_user() is not None:
            shutil.chown(self.server_tmp, unprivileged_user())
        self._trust = Trust(run)
        self.gateway = Gateway(run).trust(self._trust.entry())
        self.gateway.config["listen"]["postgres"].update(default_target=policy.TARGET, limits=LIMITS)
        upstream = {"host": "127.0.0.1", "port": self.server.port, "database": policy.TARGET, "tls": "off"}
        upstream["logins"] = [{"user": self.role, "auth": "trust"}]
        self.gateway.config["targets"][policy.TARGET] = {"postgres": {**upstream, "allow_privileged_login": True}}
        self.gateway.config["console"] = {"roles": {"admin": [OPERATORS]}}
        # Replayed sessions are compared whole.
        self.gateway.config["audit"] = {"results": {"rows": 1_000_000_000, "bytes": "1GiB"}}
        self.holds = policy.equip(self.gateway, corpus)
        self._start(given.log)
        self.relay = Relay(self.gateway.port).open()
        self._resets = run.path("reset.log")
        self.before_case = self._reset_command()

    def _start(self, level):
        """Before the database and, for an ordinary role, the login exist: the runner makes both."""
        self.gateway.launch(level=level)
        wait_until("the gateway lives", lambda: self.gateway.console("/livez")[0] == 200, alive=self.gateway.process)
        wait_until(
            "the gateway says that it is not ready while its database does not exist",
            lambda: self._target_state() == "failed", alive=self.gateway.process,
        )

    def _target_state(self):
        """What readiness says of the target; None until it has been tried."""
        return self.gateway.readiness()["checks"].get(f"target {policy.TARGET}", {}).get("state")

    def _reset_command(self):
        """What gives every case fresh budgets, so that none spends another's; a failure of it is kept to be told."""
        command = [binary(), "limits", "reset"]
        helped = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
        if helped.returncode != 0:
            say("left out: `exeat limits reset` before each case: this gateway counts nothing yet")
            return NO_RESET
        token = self.run.secret_file("operator.token", self._trust.token("operator", [OPERATORS], ttl=TOKEN_TTL))
        # The token stands in a file: command lines show in the process list.
        reset = f"EXEAT_URL={self.gateway.console_url()} EXEAT_TOKEN=$(cat {token}) {' '.join(map(str, command))} >/dev/null"
        return f"{reset} 2>>{self._resets}.err || echo $CASE_ID >>{self._resets}"

    def dsn(self, direct=False):
        """The road under test; its user is the upstream role, so that cases that name it mean the same on both roads."""
        if direct:
            return self.server.dsn(self.role, None, policy.TARGET)
        return Dsn("127.0.0.1", self.relay.port, self.role, None, policy.TARGET)

    def token(self):
        return self._trust.token("agent-7", [policy.GROUP])

    def admin(self):
        return self.server.dsn(SUPERUSER, None, policy.TARGET)

    def verify(self):
        """After a suite: everything still runs, and every reset did what it is for."""
        for child in (self.gateway.process, self.server.process):
            if child.poll() is not None:
                raise HarnessError(f"{child.title} ended by itself with status {child.returncode}\n{child.tail()}")
        if self._resets.exists():
            failed = self._resets.read_text().split()
            said = self._resets.with_suffix(".log.err").read_text().strip().splitlines()
            raise HarnessError(f"budgets were not reset before {len(failed)} cases, {failed[0]} first: {said[-1:]}")
