"""A gateway's record held against what others saw of the same sessions: the server's own log says which statements it was sent, a
relay has every byte that a client got. Statements of a test carry a mark, so that each is found again."""

import json
import os
import re
import subprocess

from lib import wire
from lib.gateway import Gateway, binary
from lib.postgres import Server
from lib.transcript import behind_login, messages, replay
from spine import POLICY

MARK = re.compile(r"/\* mark ([\w.]+) \*/")
ROWS = "SELECT id, email, ssn FROM customers WHERE id < {} {}"
VERIFY_SECONDS_MAX = 300


def marked(mark):
    return f"/* mark {mark} */"


def logging_server(run, title):
    """Writes down every statement that it is sent."""
    settings = {"log_statement": "all", "log_line_prefix": "%p "}
    return Server(run, int(os.environ.get("EXEAT_E2E_PG", "15")), title=title, settings=settings)


def recorded_gateway(run, trust, shop, name, durability):
    gateway = Gateway(run, name).policy(POLICY).trust(trust.entry())
    # Whoever watches it does, also where it is not stopped.
    gateway.verifies = False
    gateway.config["listen"]["postgres"]["limits"] = {"failed_logins": "1000/min"}
    gateway.config["audit"] = {"durability": durability, "results": {"rows": 1_000_000, "bytes": "1GiB"}}
    return gateway.target(shop.server, shop.database, shop.logins(), unclassified="allow")


class Growing:
    """What came to a file since it was read last, in whole lines."""

    def __init__(self, path):
        self.path, self.read = path, path.stat().st_size if path.exists() else 0

    def lines(self):
        with open(self.path, "rb") as file:
            file.seek(self.read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.read += len(whole)
        return whole.splitlines()


class ServerLog:
    """Which marked statements the server was sent, each by the mark it has."""

    def __init__(self, server):
        self._growing = Growing(server._log)

    def new(self):
        text = b"\n".join(self._growing.lines()).decode(errors="replace")
        return [mark for line in text.splitlines() if "LOG:" in line for mark in MARK.findall(line)]


class RecordLog:
    """The lines of a gateway's log, as it grows; each is the one after the one before."""

    def __init__(self, gateway):
        self.folder = gateway.data_dir / "log"
        self.seq = 0
        self._files = {}

    def new(self):
        found = []
        for path in sorted(self.folder.iterdir()) if self.folder.exists() else []:
            if path not in self._files:
                self._files[path] = Growing(path)
                self._files[path].read = 0
            found += [json.loads(line) for line in self._files[path].lines()]
        assert [line["seq"] for line in found] == list(range(self.seq, self.seq + len(found))), "the record has a gap"
        self.seq += len(found)
        return found

    def is_torn(self):
        """Its last file ends inside a line, as a write that was cut short leaves it."""
        last = max(self.folder.iterdir())
        return not last.read_bytes().endswith(b"\n")


class OpenIntents:
    """Admitted statements without a last outcome, as the lines so far have them: {seq: (session, request)}."""

    def __init__(self):
        self.open = {}

    def follow(self, lines):
        """Gives the intents that recovery closed in these lines."""
        closed = {}
        for line in lines:
            body = line["body"]
            if line["type"] == "statement.intent" and body["decision"] == "allow":
                self.open[line["seq"]] = line["session"], body["request_id"]
            elif line["type"] == "statement.outcome" and body["last"]:
                self.open = {seq: one for seq, one in self.open.items() if one != (line["session"], body["request_id"])}
            elif line["type"] == "session.end":
                self.open = {seq: one for seq, one in self.open.items() if one[0] != line["session"]}
            elif line["type"] == "recovery":
                for unknown in body.get("unknown", []):
                    closed[unknown["seq"]] = unknown["session"], unknown["request_id"]
                    self.open.pop(unknown["seq"], None)
        return closed


def sessions_of(lines):
    """{where the client came from: session}"""
    return {line["source"]: line["session"] for line in lines if line["type"] == "session.start"}


def marks_on_record(gateway, session):
    """Of the statements that the record says may have left the gateway."""
    done = replay(gateway, session, "--json")
    assert done.returncode == 0, done.stderr.decode()
    marks = []
    for line in done.stdout.splitlines():
        shown = json.loads(line)
        if shown["event"]["type"] == "statement.intent" and shown["event"]["body"]["decision"] == "allow":
            marks += MARK.findall(shown.get("sql", ""))
    return marks


def without_last_word(got):
    """What the gateway cannot record is that it cannot record: the one thing it says without having it on record."""
    said = messages(got, whole=False)
    if said and said[-1][0] == "E":
        fields = wire.error_fields(said[-1][1][5:])
        if (fields["S"], fields["C"]) == ("FATAL", "58030"):
            return got[: -len(said[-1][1])]
    return got


def released_beyond_record(gateway, sessions, answers, disk_fails=False):
    """Sessions whose client got what is not on record: their names, with how much. A client without a session got no login.
    Where the disk fails a client is told so, and that cannot be on record."""
    found = []
    for source, answer in answers.items():
        got = behind_login(answer, whole=False)
        if source not in sessions:
            assert not got, f"{source} was served without a session on record"
            continue
        done = replay(gateway, sessions[source], "--bytes")
        assert done.returncode == 0, done.stderr.decode()
        if not done.stdout.startswith(got):
            if disk_fails and done.stdout.startswith(without_last_word(got)):
                continue
            same = len(os.path.commonprefix([done.stdout, got]))
            found.append(f"{sessions[source]}: {len(got)} bytes, {len(done.stdout)} on record, {same} the same")
    return found


def verified(folder):
    """(exit status, what is wrong)"""
    done = subprocess.run(
        [binary(), "audit", "verify", folder, "--json"], capture_output=True, text=True, timeout=VERIFY_SECONDS_MAX, check=False
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["wrong"]


def ask_simple(connection, mark):
    connection.cycle(wire.query(ROWS.format(6, marked(mark))))


def ask_extended(connection, mark):
    parts = (wire.parse(ROWS.format("$1", marked(mark)), "", [23]), wire.bind("", "", ["4"]), wire.describe("P"), wire.execute())
    connection.cycle(*parts, wire.SYNC)


def ask_failing(connection, mark):
    connection.cycle(wire.query(f"SELECT 1 / 0 {marked(mark)}"))


def ask_refused(connection, mark):
    connection.cycle(wire.query(f"SELECT id FROM customers WHERE ssn > '5' {marked(mark)}"))


def ask_pipelined(connection, mark):
    """Five batches at once, none of them waited for."""
    parts = []
    for number in range(5):
        sql = f"SELECT {number} {marked(f'{mark}.{number}')}"
        parts += [wire.parse(sql), wire.bind(), wire.execute(), wire.SYNC]
    connection.send(*parts)
    for _ in range(5):
        connection.receive_until("Z")


def ask_large(connection, mark):
    connection.cycle(wire.query(f"SELECT repeat(md5(i::text), 10) FROM generate_series(1, 300) i {marked(mark)}"))


ASKED = [ask_simple, ask_extended, ask_failing, ask_refused, ask_pipelined, ask_large]
