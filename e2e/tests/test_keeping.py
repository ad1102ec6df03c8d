"""The record kept: a log that is not what was signed is kept aside and not gone on with in silence; signing keys hand
over; sessions are erased, unless they are under a legal hold."""

import json
import shutil
import subprocess

import psycopg
import pytest

from lib import record
from lib import tokens
from lib.gateway import Trust, binary
from lib.run import wait_until
from spine import policy
from test_evidence import by_the_page

ROLES = {"roles": {"admin": ["ops"], "auditor": ["eyes"]}}


def exeat(*arguments):
    return subprocess.run([binary(), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


class Keeping:
    """A gateway, and whoever looks after its record."""

    def __init__(self, gateway, trust):
        self.gateway, self.trust = gateway, trust
        self.folder = gateway.data_dir
        self.boss = trust.token("boss", ["ops"])

    def session(self, subject, *statements):
        """Runs them in a session that ends, and says which it was."""
        dsn = self.gateway.dsn(self.trust.token(subject, ["agents"])).text()
        with psycopg.connect(dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)
        return self.events("session.start")[-1]["session"]

    def events(self, kind, log="log"):
        return record.events(self.folder, kind, log)

    def key(self):
        return exeat("audit", "key", "--config", self.gateway.config_file).stdout.strip()

    def verified(self, *arguments):
        done = exeat("audit", "verify", self.folder, "--json", *arguments)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def done(self, *arguments):
        status, printed, said = self.gateway.command(self.boss, *arguments)
        assert status == 0, (arguments, said)
        return printed


@pytest.fixture
def keeping(request, fresh_gateway, trust):
    name = "".join(sign if sign.isalnum() else "-" for sign in request.node.name)[:40]
    gateway = fresh_gateway(f"keeping-{name}").trust(trust.entry())
    gateway.config["console"] = ROLES
    yield Keeping(gateway.start(), trust)
    gateway.stop()


def cut(log):
    """Its last lines, as after power was lost."""
    lines = log.read_bytes().split(b"\n")
    log.write_bytes(b"\n".join(lines[:20]) + b"\n")


def test_a_log_that_lost_signed_lines_is_kept_aside_and_the_gateway_goes_on_with_a_new_one(keeping):
    key = keeping.key()
    keeping.session("agent-7", *[f"SELECT email FROM customers WHERE id = {number}" for number in range(20)])
    keeping.gateway.stop()
    keeping.gateway.verifies = False
    [log] = (keeping.folder / "log").iterdir()
    cut(log)
    left = log.read_bytes()
    keeping.gateway.start()
    assert "kept aside" in keeping.gateway.log_text()
    keeping.session("agent-8", "SELECT email FROM customers")
    keeping.gateway.stop()
    assert (keeping.folder / "log-1" / log.name).read_bytes() == left
    told = keeping.events("recovery")[0]
    assert told["seq"] == 1 and told["body"]["log"] == "log-1" and told["body"]["found"] == 20, told
    assert told["body"]["signed"].startswith(keeping.gateway.config["name"] + "\n"), told
    status, found = keeping.verified("--key", key)
    assert status == 6 and not found["clean"] and found["wrong"] == [] and found["signed"]["records"] == found["records"]
    [old] = found["kept_aside"]
    assert old["log"] == "log-1" and "the log ends after 20 records" in old["wrong"][0], old
    said = exeat("audit", "verify", keeping.folder, "--key", key).stdout
    assert "log-1: kept aside" in said and "WRONG  the log ends after 20 records" in said, said
    keeping.gateway.start()


def test_a_key_hands_over_while_the_gateway_runs_and_beside_it_and_the_first_one_leads_to_the_last(keeping, tmp_path):
    first = keeping.key()
    config = keeping.gateway.config_file
    keeping.session("agent-7", "SELECT email FROM customers")
    for who in ("eyes", "agents"):
        status, _, said = keeping.gateway.command(keeping.trust.token("somebody", [who]), "audit", "rotate-key")
        assert status == 3 and "role admin" in said, said
    assert keeping.gateway.command(keeping.trust.token("boss", ["ops"], act="agent-7"), "audit", "rotate-key")[0] == 3
    assert keeping.events("key.rotate") == []
    running = exeat("audit", "rotate-key", "--config", config)
    assert running.returncode == 1 and "running" in running.stderr, running
    rotated = keeping.done("audit", "rotate-key")
    assert rotated["number"] == 1 and rotated["old"] == first, rotated
    [line] = keeping.events("key.rotate")
    assert line["principal"]["sub"] == "boss" and line["body"]["new"] == rotated["new"] and line["body"]["number"] == 1
    keeping.session("agent-7", "SELECT email FROM customers")
    keeping.gateway.stop()
    beside = exeat("audit", "rotate-key", "--config", config, "--json")
    assert beside.returncode == 0 and json.loads(beside.stdout)["old"] == rotated["new"], beside
    keeping.gateway.start()
    keeping.session("agent-7", "SELECT email FROM customers")
    keeping.gateway.stop()
    listed = [entry.split("  ") for entry in exeat("audit", "key", "--config", config).stdout.splitlines()]
    assert [key for key, _ in listed] == [first, rotated["new"], json.loads(beside.stdout)["new"]], listed
    assert listed[0][1].startswith("from 0 to ") and listed[2][1].endswith(" on"), listed
    for key, _ in listed:
        status, found = keeping.verified("--key", key)
        assert status == 0 and [link["trusted"] for link in found["handed_over"]] == [True, True], found
    said = exeat("audit", "verify", keeping.folder, "--key", first).stdout
    assert f"hands over to {rotated['new']}" in said and "trusted as the one before it" in said, said
    # The page's own check, with the key that signs now.
    copy = tmp_path / "copy"
    shutil.copytree(keeping.folder, copy)
    pem = exeat("audit", "key", "--pem", "--config", config).stdout
    assert "Signature Verified Successfully" in by_the_page(copy, pem)
    for note in (copy / "tree" / "rotations").iterdir():
        note.unlink()
    broken = exeat("audit", "verify", copy, "--key", first)
    assert broken.returncode == 6 and "no checkpoint is signed by both" in broken.stdout, broken.stdout
    keeping.gateway.start()


def test_a_bundle_of_a_session_before_the_hand_over_is_proved_by_the_key_that_signs_now(keeping, tmp_path):
    first = keeping.key()
    session = keeping.session("agent-7", "SELECT email FROM customers")
    second = keeping.done("audit", "rotate-key")["new"]
    keeping.session("agent-8", "SELECT 1")
    keeping.gateway.stop()
    bundle = tmp_path / "bundle"
    made = exeat("sessions", "export", session, "--config", keeping.gateway.config_file, "--out", bundle)
    assert made.returncode == 0, made.stderr
    assert second in (bundle / "key").read_text(), "whoever gets the bundle can check it"
    proofs = sorted((bundle / "proofs").iterdir())
    assert len(proofs) == len((bundle / "events.jsonl").read_text().splitlines()) > 3
    for proof in proofs:
        assert exeat("audit", "verify", "--proof", proof, "--key", second).returncode == 0
        # By both keys is the checkpoint of the hand-over only; behind it the first one signs nothing.
        assert exeat("audit", "verify", "--proof", proof, "--key", first).returncode == 6
    keeping.gateway.start()


SECRET = "SELECT id, 'someone@example.com' AS who FROM customers"


def test_a_session_is_erased_by_an_administrator_on_record_and_the_record_still_verifies(keeping):
    first = keeping.session("agent-7", SECRET)
    other = keeping.session("agent-8", SECRET)
    ask = ("audit", "erase", "--session", first, "--reason", "article 17")
    for token in (keeping.trust.token("eye", ["eyes"]), keeping.trust.token("boss", ["ops"], act="agent-7")):
        status, _, said = keeping.gateway.command(token, *ask)
        assert status == 3 and "role admin" in said, said
    assert keeping.events("erasure") == []
    for wrong, words in [
        (("--session", "nobody's"), "not in the record"),
        (("--principal", "agent-7", "--before", "yesterday"), "no date"),
        (("--principal", "agent-7", "--before", "2020-01-01"), None),
    ]:
        status, printed, said = keeping.gateway.command(keeping.boss, "audit", "erase", *wrong, "--reason", "x")
        assert (status, printed["erased"]) == (0, []) if words is None else status == 1 and words in said, (wrong, said)
    for usage in (("--session", first), ("--reason", "x"), ("--session", first, "--principal", "a", "--reason", "x")):
        assert keeping.gateway.command(keeping.boss, "audit", "erase", *usage)[0] == 2, usage
    assert keeping.done(*ask) == {"erased": [first], "refused": [], "already": 0}
    begun, done = keeping.events("erasure")
    assert (begun["body"]["state"], done["body"]["state"], begun["body"]["session"]) == ("begun", "done", first)
    assert begun["principal"]["sub"] == "boss" and begun["body"]["reason"] == "article 17" and begun["body"]["of"] == "agent-7"
    status, _, said = keeping.gateway.command(keeping.boss, *ask)
    assert status == 1 and "was erased" in said, said
    replay = lambda session: exeat("sessions", "replay", session, "--config", keeping.gateway.config_file)
    assert "someone@example.com" in replay(other).stdout
    gone = replay(first)
    assert "someone@example.com" not in gone.stdout + gone.stderr and "erased" in gone.stdout + gone.stderr, gone
    keeping.gateway.stop()
    status, found = keeping.verified("--key", keeping.key())
    assert status == 0 and found["erased_sessions"] == 1, found
    keys = keeping.folder / "session-keys"
    whole = keys.read_bytes()
    slot = keeping.events("session.start")[1]["body"]["data_key"]["slot"]
    keys.write_bytes(whole[: slot * 60] + bytes(60) + whole[slot * 60 + 60 :])
    status, found = keeping.verified()
    assert status == 6 and f'"{other}" was destroyed, and no record says who' in found["wrong"][0], found
    keys.write_bytes(whole)
    keeping.gateway.start()


def test_what_runs_and_what_is_under_a_legal_hold_is_not_erased(keeping):
    held = keeping.session("agent-7", SECRET)
    dsn = keeping.gateway.dsn(keeping.trust.token("agent-7", ["agents"])).text()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT 1")
        running = keeping.events("session.start")[-1]["session"]
        status, _, said = keeping.gateway.command(keeping.boss, "audit", "erase", "--session", running, "--reason", "x")
        assert status == 1 and f'session "{running}" is running' in said, said
    hold = ("audit", "hold", "--principal", "agent-7", "--reason", "case 12")
    assert keeping.gateway.command(keeping.trust.token("eye", ["eyes"]), *hold)[0] == 3
    assert keeping.done(*hold)["principal"] == "agent-7"
    status, _, said = keeping.gateway.command(keeping.boss, *hold)
    assert status == 1 and "already: case 12" in said, said
    keeping.gateway.stop()
    keeping.gateway.start()
    [listed] = keeping.gateway.command(keeping.trust.token("eye", ["eyes"]), "audit", "holds")[1]["holds"]
    assert (listed["principal"], listed["reason"], listed["by"]) == ("agent-7", "case 12", "boss")
    assert keeping.gateway.command(keeping.trust.token("agent-7", ["agents"]), "audit", "holds")[0] == 3
    for whose in (("--session", held), ("--principal", "agent-7")):
        status, _, said = keeping.gateway.command(keeping.boss, "audit", "erase", *whose, "--reason", "article 17")
        assert status == 1 and "under a legal hold" in said and "case 12" in said, said
    refused = [event["body"] for event in keeping.events("erasure")]
    assert {body["state"] for body in refused} == {"refused"} and refused[0]["session"] == held, refused
    keeping.done("audit", "release", "--principal", "agent-7", "--reason", "closed")
    assert [event["type"] for kind in ("legal_hold.set", "legal_hold.lifted") for event in keeping.events(kind)] == [
        "legal_hold.set", "legal_hold.lifted",
    ]
    assert keeping.gateway.command(keeping.boss, "audit", "release", "--principal", "agent-7", "--reason", "x")[0] == 1
    erased = keeping.done("audit", "erase", "--principal", "agent-7", "--reason", "article 17")
    assert held in erased["erased"] and running in erased["erased"], erased


def test_of_two_issuers_a_subject_of_the_same_name_is_somebody_else(fresh_gateway, run, trust):
    other, elsewhere = Trust(run, "other-issuer"), "https://other.exeat.test"
    both = {"id": "both", "who": {"groups": ["agents"], "issuers": [tokens.ISSUER, elsewhere]}, "target": "shop", "allow": ["read"]}
    gateway = fresh_gateway("keeping-issuers", policy(more=[both])).trust(trust.entry()).trust({**other.entry(), "issuer": elsewhere})
    gateway.config["console"] = ROLES
    keeping = Keeping(gateway.start(), trust)
    mine = keeping.session("agent-7", SECRET)
    with psycopg.connect(gateway.dsn(other.token("agent-7", ["agents"], issuer=elsewhere)).text(), autocommit=True):
        theirs = keeping.events("session.start")[-1]["session"]
    assert {event["principal"]["iss"] for event in keeping.events("session.start")} == {tokens.ISSUER, elsewhere}
    for verb in ("erase", "hold"):
        status, _, said = keeping.gateway.command(keeping.boss, "audit", verb, "--principal", "agent-7", "--reason", "article 17")
        assert status == 1 and tokens.ISSUER in said and elsewhere in said and "which" in said, said
    assert keeping.events("erasure") == keeping.events("legal_hold.set") == []
    ask = ("--principal", "agent-7", "--issuer", elsewhere, "--reason", "article 17")
    status, _, said = keeping.gateway.command(keeping.boss, "audit", "erase", "--session", mine, "--issuer", elsewhere, "--reason", "x")
    assert status == 1 and '"issuer" goes with a "principal"' in said, said
    status, _, said = keeping.gateway.command(keeping.boss, "audit", "erase", *ask[:3], "https://nobody.test", "--reason", "x")
    assert status == 1 and "no session" in said, said
    assert keeping.done("audit", "hold", *ask)["issuer"] == elsewhere
    assert keeping.gateway.command(keeping.boss, "audit", "erase", *ask)[0] == 1
    assert keeping.done("audit", "release", *ask)["issuer"] == elsewhere
    wait_until("its session has ended", lambda: theirs in [event["session"] for event in keeping.events("session.end")])
    assert keeping.done("audit", "erase", *ask) == {"erased": [theirs], "refused": [], "already": 0}
    replay = exeat("sessions", "replay", mine, "--config", gateway.config_file)
    assert replay.returncode == 0 and "someone@example.com" in replay.stdout, replay
    gateway.stop()
