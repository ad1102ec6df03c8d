"""Reading the record: sessions are found by what they did and shown statement by statement, from the files a gateway wrote."""

import csv
import html.parser
import io
import json
import os
import pathlib
import shutil
import stat
import subprocess
import tempfile

import psycopg
import pytest

from lib import record
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
    session("agent-9", [("SELECT 1 AS one", None), ("SELECT 2 /*;=1+1*/", None)], ["SELECT * FROM hr.salaries"])

    wait_until("three sessions have ended on record", lambda: len(record.events(gateway.data_dir, "session.end")) == 3)
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
    # As psycopg sends a 1: two bytes, in binary.
    assert [statement["parameters"] for statement in bound] == [[{"b64": "AAE="}]]
    told = exeat("sessions", "show", session["session"], "--config", read.config).stdout
    assert "| SELECT id, ssn, email FROM customers" in told and "masked public.customers.ssn as ssn: partial" in told
    assert "not a session of this record" in exeat("sessions", "show", "nobody", "--config", read.config, status=1).stderr


def test_a_replay_by_the_index_is_the_one_of_the_log(read, tmp_path):
    sessions = [session["session"] for session in read.sessions()]
    assert (read.data / "index.db").stat().st_size > 0
    data = tmp_path / "copy"
    shutil.copytree(read.data, data, ignore=shutil.ignore_patterns("index.db*"))

    def replayed(session, *arguments):
        return exeat("sessions", "replay", session, "--config", read.config, "--json", *arguments).stdout

    for session in sessions:
        whole = replayed(session, "--data", data)
        assert replayed(session) == whole and whole.count("session.start") == 1 and whole.count("session.end") == 1
    assert not (data / "index.db").exists(), "none is made for a replay"
    (data / "index.db").write_bytes(b"no index" * 1000)
    assert replayed(sessions[0], "--data", data) == replayed(sessions[0]), "the log has everything"
    assert "nobody" in exeat("sessions", "replay", "nobody", "--config", read.config, status=1).stderr


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
    copied = read.json("sessions", "list", *where, "--config", read.config, "--text", "pangolin")["sessions"]
    assert copied == found, "a copy of the configured record opens with its keys"
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


@pytest.fixture(scope="module")
def exported(read, tmp_path_factory):
    """Each session's bundle, by its subject."""
    bundles = {}
    for session in read.sessions():
        out = tmp_path_factory.mktemp("bundles") / session["principal"]["sub"]
        exeat("sessions", "export", session["session"], "--config", read.config, "--out", out)
        bundles[session["principal"]["sub"]] = out
    return bundles


def test_a_bundle_holds_the_lines_as_they_stand_and_a_proof_for_each(read, exported):
    log = b"".join(path.read_bytes() for path in sorted((read.data / "log").iterdir())).splitlines()
    bundle = exported["agent-7"]
    lines = (bundle / "events.jsonl").read_bytes().splitlines()
    assert len(lines) > 5 and all(line in log for line in lines)
    assert [line for line in log if json.loads(line).get("session") == json.loads(lines[0])["session"]] == lines
    key = (bundle / "key").read_text().strip()
    assert key == exeat("audit", "key", "--config", read.config).stdout.strip()
    for line in lines:
        seq = json.loads(line)["seq"]
        proof = bundle / "proofs" / f"{seq}.tlog-proof"
        found = json.loads(exeat("audit", "verify", "--proof", proof, "--key", key, "--json").stdout)
        assert found["clean"] and found["index"] == seq and found["record"].encode() == line
    statements = json.loads((bundle / "session.json").read_text())["statements"]
    assert statements[0]["sql"].startswith("SELECT id, ssn, email") or any("ssn" in s.get("sql", "") for s in statements)
    rows = [json.loads(line)["sent"] for line in (bundle / "rows.jsonl").read_text().splitlines()]
    seen = [sent["row"] for sent in rows if "row" in sent]
    assert len(seen) == 4 and all(cell is None or "@" not in str(cell) for row in seen for cell in row), "as the client saw it"
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o700 and stat.S_IMODE((bundle / "session.json").stat().st_mode) == 0o600
    again = exeat("sessions", "export", json.loads(lines[0])["session"], "--config", read.config, "--out", bundle, status=1)
    assert "not empty" in again.stderr


def test_a_proof_that_was_altered_is_refused(read, exported, tmp_path):
    key = (exported["agent-7"] / "key").read_text().strip()
    whole = sorted((exported["agent-7"] / "proofs").iterdir())[0].read_text()
    extra = next(line for line in whole.splitlines() if line.startswith("extra "))
    for change in (
        lambda text: text.replace(extra, extra[:-12] + "AAAA" + extra[-8:]),
        lambda text: text.replace("index ", "index 1", 1),
        lambda text: text.replace("tlog-proof@v1", "tlog-proof@v9"),
        lambda text: text[:-20],
        lambda text: "",
    ):
        altered = tmp_path / "altered.tlog-proof"
        altered.write_text(change(whole))
        assert change(whole) != whole
        done = exeat("audit", "verify", "--proof", altered, "--key", key, status=6)
        assert done.stdout.startswith("WRONG")
    other = key.rsplit("+", 1)[0].rsplit("+", 1)[0] + "+0cdc2e7c+AYEKNTLzeD6BNGgHcqdnhqLnRyOL9HjMOMGkqdIIhz2M"
    (tmp_path / "whole").write_text(whole)
    assert exeat("audit", "verify", "--proof", tmp_path / "whole", "--key", key).returncode == 0
    done = subprocess.run([binary(), "audit", "verify", "--proof", str(tmp_path / "whole"), "--key", other], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert exeat("audit", "verify", "--proof", tmp_path / "whole", status=2)


def test_one_record_is_proved_and_one_that_is_not_there_is_not(read, tmp_path):
    key = exeat("audit", "key", "--config", read.config).stdout.strip()
    out = tmp_path / "3.tlog-proof"
    exeat("audit", "prove", read.data, "--seq", 3, "--out", out)
    told = exeat("audit", "verify", "--proof", out, "--key", key).stdout
    assert told.startswith("ok     record 3 of ")
    shown = json.loads(exeat("audit", "prove", read.data, "--seq", 3, "--json").stdout)
    assert json.loads(shown["record"])["seq"] == 3 and shown["leaf"] and shown["checkpoint"].count("\n\n") == 1
    assert "not signed yet" in exeat("audit", "prove", read.data, "--seq", 10**6, status=1).stderr
    data = tmp_path / "copy"
    shutil.copytree(read.data, data)
    log = sorted((data / "log").iterdir())[0]
    lines = log.read_bytes().split(b"\n")
    lines[3] = lines[3].replace(b'"v":1', b'"v":2')
    log.write_bytes(b"\n".join(lines))
    assert "not the one that was signed" in exeat("audit", "prove", data, "--seq", 3, status=6).stderr
    exeat("audit", "prove", data, "--seq", 4)


class Page(html.parser.HTMLParser):
    """What a page is made of."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.texts = set(), [], []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_needs_and_reaches_nothing_and_hostile_text_is_text(exported):
    text = (exported["agent-8"] / "index.html").read_text()
    page = Page()
    page.feed(text)
    assert page.tags <= {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "pre", "b", "code", "span", "article", "table", "tr", "th", "td"}
    assert not [found for found in page.attributes if found[1].startswith("on") or found[1] in {"src", "href", "srcset", "action", "style", "data"}]
    policy = [value for tag, name, value in page.attributes if tag == "meta" and name == "content" and "default-src" in value]
    assert policy and "default-src 'none'" in policy[0] and "script-src" not in policy[0]
    assert "url(" not in text and "@import" not in text
    shown = "".join(page.texts)
    assert "<script>alert(1)</script> pangolin" in shown and "<script" not in text
    assert "How to check it" in shown and "22012" in shown


def browsed(page):
    """A page from the disk as a browser has it when it is loaded: its document, after whatever ran in it."""
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic", "--no-first-run"]
    with tempfile.TemporaryDirectory() as profile:
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_a_browser_opens_the_page_from_the_disk_and_runs_nothing_in_it(exported, tmp_path):
    page = exported["agent-8"] / "index.html"
    shown = Page()
    shown.feed(browsed(page))
    assert "script" not in shown.tags and "<script>alert(1)</script> pangolin" in "".join(shown.texts)
    assert "How to check it" in "".join(shown.texts)
    # The same with a script that got in after all: the page's own policy stops it, and without that policy it runs.
    script = "<script>document.body.append('it' + ' ran')</script></body>"
    (tmp_path / "injected.html").write_text(page.read_text().replace("</body>", script))
    assert "it ran" not in browsed(tmp_path / "injected.html")
    bare = (tmp_path / "injected.html").read_text().replace("Content-Security-Policy", "nothing")
    (tmp_path / "bare.html").write_text(bare)
    assert "it ran" in browsed(tmp_path / "bare.html")


def test_csv_has_a_row_for_each_statement_and_no_formula(read):
    for subject in ("agent-7", "agent-8", "agent-9"):
        (session,) = read.sessions("--principal", subject)
        text = subprocess.run([binary(), "sessions", "export", session["session"], "--config", str(read.config), "--format", "csv"], capture_output=True, timeout=60, check=True).stdout.decode()
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert text.endswith("\r\n") and len(rows) >= session["statements"]
        assert all(row["session"] == session["session"] and row["subject"] == subject for row in rows)
        for row in rows:
            assert not [cell for cell in row.values() if cell[:1] in "=+-@\t\r" and cell]
        # As a spreadsheet reads it where the semicolon parts cells.
        apart = [cell for row in csv.reader(io.StringIO(text, newline=""), delimiter=";") for cell in row]
        assert not [cell for cell in apart if cell.lstrip()[:1] in tuple("=+-@")], apart
    assert [row["code"] for row in rows if row["decision"] == "refuse"] == ["denied"]


def problems(value, schema, at="event"):
    """What of JSON Schema the schema beside this file uses."""
    types = {"object": dict, "array": list, "string": str, "integer": int}
    if "type" in schema and (not isinstance(value, types[schema["type"]]) or isinstance(value, bool)):
        return [f"{at} is no {schema['type']}"]
    found = []
    if "const" in schema and value != schema["const"] or "enum" in schema and value not in schema["enum"]:
        found.append(f"{at} is {value!r}")
    if isinstance(value, dict):
        found += [f"{at} lacks {name}" for name in schema.get("required", []) if name not in value]
        if "anyOf" in schema and all(problems(value, {"required": way["required"]}) for way in schema["anyOf"]):
            found.append(f"{at} lacks each of {schema['anyOf']}")
        for name, member in value.items():
            known = schema.get("properties", {}).get(name)
            if known is None and schema.get("additionalProperties", True) is False:
                found.append(f"{at}.{name} is not known")
            found += problems(member, known or {}, f"{at}.{name}")
    if isinstance(value, list):
        found += [problem for item in value for problem in problems(item, schema.get("items", {}), f"{at}[]")]
    return found


def test_ocsf_is_as_its_schema_says(read):
    schema = json.loads((pathlib.Path(__file__).parent / "ocsf_datastore_activity.schema.json").read_text())
    seen = []
    for session in read.sessions():
        text = exeat("sessions", "export", session["session"], "--config", read.config, "--format", "ocsf").stdout
        for line in text.splitlines():
            event = json.loads(line)
            assert problems(event, schema) == [] and event["type_uid"] == 600500 + event["activity_id"]
            assert event["actor"]["user"]["uid"] == session["principal"]["sub"]
            seen.append((event["activity_name"], event["status"], event.get("status_code")))
    assert ("Query", "Success", None) in seen and ("Query", "Failure", "22012") in seen and ("Query", "Failure", "denied") in seen
    for name, wrong in [("class_uid", 6003), ("activity_id", 11), ("time", "now"), ("severity_id", None), ("extra", 1)]:
        assert problems({**event, name: wrong}, schema), name
    assert problems({name: member for name, member in event.items() if name != "actor"}, schema)
    assert problems({name: member for name, member in event.items() if name not in ("database", "table")}, schema)


def test_access_says_who_read_a_column_and_in_what_form(read):
    now = ["--at", "0s"]
    shown = read.json("audit", "access", "--config", read.config, "--column", "public.customers.ssn", *now)
    assert [(entry["principal"]["sub"], entry["mask"], entry["rows"]) for entry in shown["read"]] == [("agent-7", "partial", 3)]
    assert shown["policy_in_force"]["is_configured"] is True and shown["does_not_answer"] is None
    clear = read.json("audit", "access", "--config", read.config, "--column", "public.orders.id", *now)
    assert {(entry["principal"]["sub"], entry["mask"]) for entry in clear["read"]} == {("agent-7", None), ("agent-8", None)}
    told = exeat("audit", "access", "--config", read.config, "--column", "public.orders.id", *now).stdout
    assert "IN CLEAR" in told and "Who could have read public.orders.id" in told
    assert read.json("audit", "access", "--data", read.data, "--column", "public.customers.ssn", "--at", "2026-01-01")["read"] == []


def test_many_sessions_are_exported_at_once_the_oldest_first(read, tmp_path):
    def export(name, *arguments, status=0):
        return exeat("audit", "export", "--config", read.config, "--format", name, *arguments, status=status)

    sessions = [session["session"] for session in reversed(read.sessions())]
    log = record.lines(read.data)
    lines = export("lines").stdout.splitlines()
    assert set(lines) <= set(log) and len(lines) > 10, "as they were signed"
    assert list(dict.fromkeys(json.loads(line)["session"] for line in lines)) == sessions
    one = export("lines", "--principal", "agent-8").stdout.splitlines()
    assert {json.loads(line)["principal"]["sub"] for line in one} == {"agent-8"} and set(one) < set(lines)
    rows = list(csv.DictReader(io.StringIO(export("csv").stdout, newline="")))
    assert [row["session"] for row in rows if row["seq"] == "seq"] == [], "one header for all"
    assert list(dict.fromkeys(row["session"] for row in rows)) == sessions
    kept = tmp_path / "ocsf.jsonl"
    assert export("ocsf", "--out", kept).stdout == "" and stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert len(kept.read_text().splitlines()) == len(rows)
    assert "ocsf.jsonl" in export("ocsf", "--out", kept, status=1).stderr, "nothing is written over"
    assert export("lines", "--principal", "nobody").stdout == ""
