"""What is older than the configuration keeps is forgotten while the gateway runs, on record; what stays verifies, by the page's
script too, and is read; what is held stays; and a gateway that is killed meanwhile goes on."""

import json
import signal

import psycopg
import pytest

from lib import record
from lib.run import wait_until
from test_archive import copy_of, to_folder
from test_evidence import by_the_page
from test_export import export, receiver
from test_keeping import ROLES, Keeping, exeat

STATEMENTS = 140
SECONDS = 60
HOLD = ("--reason", "case 12")


class Kept(Keeping):
    def lines(self):
        return record.events(self.folder)

    def first(self):
        return self.lines()[0]["seq"]

    def fill(self, subject="agent-7"):
        return self.session(subject, *["SELECT email FROM customers WHERE id = 1"] * STATEMENTS)

    def config(self, *arguments):
        return exeat(*arguments, "--config", self.gateway.config_file)

    def has_forgotten(self, session):
        """More lines come, so that there is something to keep."""
        self.fill("filler")
        return not any(event.get("session") == session for event in self.lines())


@pytest.fixture
def keeping(request, fresh_gateway, trust):
    """Started with what a test has in `audit` beside an archive and a short retention."""
    name = "".join(sign if sign.isalnum() else "-" for sign in request.node.name)[-40:]
    gateway = fresh_gateway(f"retention-{name}").trust(trust.entry())
    gateway.config["console"] = ROLES

    def start(**audit):
        to_folder(gateway, retention={"lines": "4s", "texts": "2s"}, **audit)
        return Kept(gateway.start(), trust)

    start.gateway = gateway
    yield start
    if gateway.process.poll() is None:
        gateway.stop()


@pytest.fixture
def kept(keeping):
    return keeping()


def test_what_is_old_is_forgotten_and_what_stays_verifies_and_is_read_and_the_archive_has_it_all(kept, tmp_path):
    key = kept.key()
    pem = kept.config("audit", "key", "--pem").stdout
    dsn = kept.gateway.dsn(kept.trust.token("long", ["agents"])).text()
    with psycopg.connect(dsn, autocommit=True) as long:
        long.execute("SELECT email FROM customers WHERE id = 1")
        running = kept.events("session.start")[-1]["session"]
        old = kept.fill()
        checkpoint = tmp_path / "older"
        wait_until("a checkpoint", lambda: len((kept.folder / "tree" / "checkpoint").read_text()) > 0, SECONDS)
        checkpoint.write_bytes((kept.folder / "tree" / "checkpoint").read_bytes())
        wait_until("the old session is forgotten", lambda: kept.has_forgotten(old), SECONDS)
        wait_until("it is carried", lambda: any(event["session"] == running for event in kept.events("session.carried")), SECONDS)
        long.execute("SELECT id FROM customers WHERE id = 2")
        shown = kept.config("sessions", "replay", running)
        assert shown.returncode == 0 and "SELECT id FROM customers WHERE id = 2" in shown.stdout, shown
        assert "gone by retention" in shown.stderr, shown
    assert any(event["body"]["reason"] == "retention" for event in kept.events("erasure") if "reason" in event["body"])
    listed = json.loads(kept.config("sessions", "list", "--json", "--limit", "1000").stdout)["sessions"]
    [row] = [session for session in listed if session["session"] == running]
    assert row["gone_before"] > row["first_seq"] and not any(session["session"] == old for session in listed)
    kept.gateway.stop()
    status, found = kept.verified("--key", key, "--checkpoint", checkpoint)
    assert status == 0 and found["clean"] and found["gone_by_retention"] and found["first"] > 0, found
    assert len(found["extends"]) == 1, found
    assert "by retention, their hashes are in the tree" in exeat("audit", "verify", kept.folder, "--key", key).stdout
    assert "Signature Verified Successfully" in by_the_page(kept.folder, pem)
    gone = exeat("audit", "prove", kept.folder, "--seq", "3")
    assert gone.returncode == 3 and "is gone" in gone.stderr, gone
    assert exeat("audit", "prove", kept.folder, "--seq", str(found["first"])).returncode == 0
    bundle = tmp_path / "bundle"
    done = kept.config("sessions", "export", running, "--out", bundle)
    assert done.returncode == 0 and "retention took it" in (bundle / "index.html").read_text(), done
    copy = copy_of(kept.gateway)
    whole = exeat("audit", "verify", copy, "--key", key, "--json")
    assert whole.returncode == 0 and json.loads(whole.stdout)["first"] == 0, whole
    assert any(old in file.read_text() for file in (copy / "log").iterdir())


def test_what_is_under_a_legal_hold_stays_until_it_is_lifted(kept):
    kept.done("audit", "hold", "--principal", "held", *HOLD)
    held = kept.fill("held")
    other = kept.fill("other")
    wait_until("erased", lambda: kept.fill("filler") and other in {event["body"]["session"] for event in kept.events("erasure")}, SECONDS)
    wait_until("it is told", lambda: "legal hold" in kept.gateway.log_text() or kept.fill("filler") is None, SECONDS)
    assert held not in {event["body"]["session"] for event in kept.events("erasure")}
    assert any(event.get("session") == held for event in kept.lines())
    assert "SELECT email" in kept.config("sessions", "replay", held).stdout
    kept.done("audit", "release", "--principal", "held", "--reason", "closed")
    wait_until("it is forgotten", lambda: kept.has_forgotten(held), SECONDS)


def test_lines_stay_until_an_export_that_is_away_has_told_them(keeping, authority):
    at = receiver("tcp", authority)
    kept = keeping(export=[export("tcp", at, keeping.gateway, authority)])
    at.close()
    old = kept.fill()
    wait_until("it is told", lambda: kept.fill("filler") and "lines are older than audit.retention keeps" in kept.gateway.log_text(), SECONDS)
    assert kept.first() == 0 and any(event.get("session") == old for event in kept.lines())
    at.open()
    wait_until("the old session is forgotten", lambda: kept.has_forgotten(old), SECONDS)
    seqs = [json.loads(line)["seq"] for line in at.lines()]
    assert seqs == list(range(len(seqs))) and len(seqs) >= kept.first() > 0
    at.close()


@pytest.mark.parametrize("durability", ["os", "fsync"])
def test_a_gateway_that_is_killed_again_and_again_forgets_on_and_verifies(keeping, durability):
    kept = keeping(durability=durability)
    key = kept.key()
    for _ in range(5):
        first = kept.first()
        wait_until("lines go", lambda: kept.fill() and kept.first() > first, SECONDS)
        kept.gateway.process.send_signal(signal.SIGKILL)
        kept.gateway.process.wait(30)
        kept.gateway.run.forget(kept.gateway.process)
        status, found = kept.verified("--key", key)
        assert status == 0 and found["gone_by_retention"], (found["wrong"], found)
        kept.gateway.start()
    kept.gateway.stop()
    assert kept.verified("--key", key)[0] == 0
