"""Reading the record: sessions are found by what they did and shown statement by statement, from the files a gateway wrote."""

import json
import os
import shutil
import stat
import subprocess

import psycopg
import pytest

from lib.gateway import binary
from lib.run import wait_until


def exeat(*arguments, status=0):
    done = subprocess.run([binary(), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done


class Read:
    def __init__(self, gateway):
        self.gateway, self.data = gateway, gateway.data_dir
        self.config = gateway.config_file

    def json(self, *arguments):
        return json.loads(exeat(*arguments, "--json").stdout)

    def sessions(self, *filters, config=True):
        where = ["--config", self.config] if config else ["--data", self.data]
        return self.json("sessions", "list", *where, *filters)["sessions"]

    def who(self, *filters, **more):
        return [session["principal"]["sub"] for session in self.sessions(*filters, **more)]


@pytest.fixture(scope="module")
def read(fresh_gateway, trust):
    """What three principals did, each in a session of their own."""
    gateway = fresh_gateway("reading").trust(trust.entry()).start()

    def session(name, statements, refused=()):
        token = trust.token(name, ["agents"])
        with psycopg.connect(gateway.dsn(token).text(), autocommit=True, application_name="scripted") as connection:
            for sql, values in statements:
                connection.execute(sql, values)
            for sql in refused:
                with pytest.raises(psycopg.Error):
                    connection.execute(sql)

    session("agent-7", [("SELECT id, ssn, email FROM customers WHERE id <= 3", None), ("SELECT id FROM orders WHERE id = %s", (1,))])
    session("agent-8", [("SELECT id FROM orders WHERE id < 0 -- <script>alert(1)</script> pangolin", None)], ["SELECT 1/0"])
    session("agent-9", [("SELECT 1 AS one", None)], ["SELECT * FROM hr.salaries"])

    def ended():
        lines = [line for path in (gateway.data_dir / "log").iterdir() for line in path.read_text().splitlines()]
        return sum('"type":"session.end"' in line for line in lines) == 3

    wait_until("three sessions have ended on record", ended)
    gateway.stop()
    return Read(gateway)


def test_each_filter_finds_the_sessions_that_did_it(read):
    assert read.who() == ["agent-9", "agent-8", "agent-7"]
    for filters, expected in [
        (["--principal", "agent-8"], ["agent-8"]),
        (["--principal", "agent-*", "--limit", "1"], ["agent-9"]),
        (["--group", "agents", "--target", "shop"], ["agent-9", "agent-8", "agent-7"]),
        (["--target", "crm"], []),
        (["--label", "ssn", "--relation", "public.customers"], ["agent-7"]),
        (["--label", "ssn", "--relation", "public.orders"], []),
        (["--relation", "public.orders"], ["agent-8", "agent-7"]),
        (["--column", "public.customers.ssn"], ["agent-7"]),
        (["--decision", "refuse"], ["agent-9"]),
        (["--rule", "no-payroll", "--code", "denied"], ["agent-9"]),
        (["--sqlstate", "22012"], ["agent-8"]),
        (["--sqlstate", "22012", "--relation", "public.orders"], []),
        (["--text", "pangolin"], ["agent-8"]),
        (["--text", '"select id from orders"'], ["agent-8", "agent-7"]),
        (["--text", "platypus"], []),
        (["--since", "1h"], ["agent-9", "agent-8", "agent-7"]),
        (["--until", "2026-01-01"], []),
    ]:
        assert read.who(*filters) == expected, filters


def test_a_session_is_shown_statement_by_statement(read):
    (session,) = read.sessions("--principal", "agent-7")
    assert session["statements"] == 2 and session["rows"] == 4 and session["application_name"] == "scripted" and session["ended"]
    shown = read.json("sessions", "show", session["session"], "--config", read.config)
    (masked,) = [step["statement"] for step in shown["steps"] if step.get("statement", {}).get("masked")]
    assert masked["sql"] == "SELECT id, ssn, email FROM customers WHERE id <= 3" and masked["result"] == "ok"
    assert {entry["label"] for entry in masked["masked"]} == {"ssn", "email"} and masked["outcomes"][0]["rows"] == 3
    bound = [step["statement"] for step in shown["steps"] if step.get("statement", {}).get("parameters")]
    assert [statement["parameters"] for statement in bound][-1:] == [["1"]] or bound[-1]["parameters"]
    told = exeat("sessions", "show", session["session"], "--config", read.config).stdout
    assert "| SELECT id, ssn, email FROM customers" in told and "masked public.customers.ssn as ssn: partial" in told
    assert "not a session of this record" in exeat("sessions", "show", "nobody", "--config", read.config, status=1).stderr


def test_without_keys_everything_but_texts_is_there(read, tmp_path):
    data = tmp_path / "copy"
    shutil.copytree(read.data, data, ignore=shutil.ignore_patterns("index.db*"))
    where = ["--data", data]
    assert [s["principal"]["sub"] for s in read.json("sessions", "list", *where, "--label", "ssn")["sessions"]] == ["agent-7"]
    assert "--keys" in exeat("sessions", "list", *where, "--text", "pangolin", status=1).stderr
    (session,) = read.json("sessions", "list", *where, "--principal", "agent-8")["sessions"]
    told = exeat("sessions", "show", session["session"], *where).stdout
    assert "| [sealed]" in told and "pangolin" not in told
    keys = read.gateway.config_file.parent / "keys"
    found = read.json("sessions", "list", *where, "--keys", keys, "--text", "pangolin")["sessions"]
    assert [session["principal"]["sub"] for session in found] == ["agent-8"]
    assert b"pangolin" not in (data / "index.db").read_bytes()
    assert stat.S_IMODE((data / "index.db").stat().st_mode) == 0o600
    assert "master.key" in exeat("sessions", "list", *where, "--keys", tmp_path / "none", status=1).stderr
    assert not (tmp_path / "none").exists(), "reading makes no keys"


def test_a_folder_that_cannot_be_written_is_read_all_the_same(read, tmp_path):
    data = tmp_path / "copy"
    shutil.copytree(read.data, data, ignore=shutil.ignore_patterns("index.db*"))
    (data / "index.db").mkdir()
    found = read.json("sessions", "list", "--data", data)["sessions"]
    assert len(found) == 3 and list((data / "index.db").iterdir()) == []
    assert len(read.json("sessions", "list", "--data", data, "--index", tmp_path / "my.index")["sessions"]) == 3
    assert (tmp_path / "my.index").stat().st_size > 0
    state = tmp_path / "mine.db"
    subprocess.run(["sqlite3", state, "CREATE TABLE mine (x)"], check=True) if shutil.which("sqlite3") else make_database(state)
    assert "something else" in exeat("sessions", "list", "--data", data, "--index", state, status=1).stderr
    assert b"mine" in state.read_bytes()


def make_database(path):
    import sqlite3

    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE mine (x)")


def test_which_record_has_to_be_said(read):
    environment = {key: value for key, value in os.environ.items() if key != "EXEAT_CONFIG"}
    done = subprocess.run([binary(), "sessions", "list"], capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 1 and "--data" in done.stderr
