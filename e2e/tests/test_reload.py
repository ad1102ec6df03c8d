"""What changes without a restart: the policy (the last good one is kept) and the certificate."""

import hashlib
import shutil
import socket
import ssl
import struct
import subprocess

import psycopg
import pytest

from lib import wire
from lib.run import wait_until
from lib.yaml_text import dump
from spine import POLICY, REDACTED, policy

STRICTER = policy({"email": {"with": "nullify"}, "ssn": {"with": "redact"}})


@pytest.fixture(scope="module")
def changing(fresh_gateway, trust):
    gateway = fresh_gateway("changing").trust(trust.entry()).start()
    yield gateway
    gateway.stop()


@pytest.fixture
def row(changing, trust):
    """The e-mail and social-security number of customer 1, as the agent sees them on a new and on an old connection."""
    dsn = changing.dsn(trust.token("agent-7", ["agents"]))
    with psycopg.connect(dsn.text(), autocommit=True) as old:

        def read():
            with psycopg.connect(dsn.text()) as new:
                rows = [c.execute("SELECT email, ssn FROM customers WHERE id = 1").fetchone() for c in (old, new)]
            return rows

        yield read


def test_a_good_policy_is_taken_up_by_open_and_new_sessions(changing, row):
    changing.policy(POLICY)
    wait_until("the first policy holds", lambda: all(email == REDACTED for email, _ in row()))
    changing.policy(STRICTER)
    wait_until("the new policy holds", lambda: row() == [(None, REDACTED)] * 2)


@pytest.mark.parametrize(
    "broken",
    ["version: 1\nrulez: []\n", "version: 1\nrules: [", "", POLICY.replace('"redact"', '"redactt"')],
    ids=["unknown-key", "not-yaml", "empty", "unknown-mask"],
)
def test_the_last_good_policy_is_kept_when_a_broken_one_arrives(changing, row, broken):
    changing.policy(STRICTER)
    wait_until("the good policy holds", lambda: row() == [(None, REDACTED)] * 2)
    before = len(changing.log_text())
    changing.policy(broken)
    wait_until("the log names the broken file", lambda: "policy.yaml" in changing.log_text()[before:])
    assert row() == [(None, REDACTED)] * 2
    wait_until("readiness tells", lambda: changing.readiness()["checks"]["policy"]["state"] == "degraded")
    changing.policy(POLICY)
    wait_until("a mended policy is taken up", lambda: all(email == REDACTED for email, _ in row()))


def test_a_policy_whose_own_test_fails_is_not_taken_up(changing, row):
    changing.policy(STRICTER)
    wait_until("the good policy holds", lambda: row() == [(None, REDACTED)] * 2)
    failing = POLICY + (
        "tests:\n  - as: {sub: agent-7, groups: [agents]}\n    target: shop\n"
        '    statement: "SELECT id FROM orders"\n    expect: {decision: deny}\n'
    )
    before = len(changing.log_text())
    changing.policy(failing)
    wait_until("the log speaks of the failing policy", lambda: "policy.yaml" in changing.log_text()[before:])
    assert row() == [(None, REDACTED)] * 2


@pytest.mark.parametrize(
    ("group", "decision", "code"), [("root", "allow", 0), ("root", "deny", 3), ("agents", "allow", 3)],
)
def test_policy_tests_pass_what_a_session_is_passed_through_for(fresh_gateway, trust, program, group, decision, code):
    """Who is allowed everything is not analysed: what does not parse passes there, and nowhere else."""
    text = dump({
        "version": 1,
        "rules": [
            {"id": "everything", "who": {"groups": ["root"]}, "target": "shop", "allow": ["all"]},
            {"id": "read", "who": {"groups": ["agents"]}, "target": "shop", "allow": ["read"]},
        ],
        "tests": [{
            "as": {"sub": "somebody", "groups": [group]}, "target": "shop", "statement": "SELEC 1",
            "expect": {"decision": decision},
        }],
    })
    gateway = fresh_gateway(f"tests-{group}-{decision}", policy=text).trust(trust.entry())
    gateway.write_config()
    arguments = [program, "policy", "test", "--config", str(gateway.config_file)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, (done.stdout, done.stderr)


def test_a_prepared_statement_follows_the_new_policy(changing, trust, row):
    """Decided at Bind, not only at Parse."""
    changing.policy(POLICY)
    wait_until("the first policy holds", lambda: all(email == REDACTED for email, _ in row()))
    dsn = changing.dsn(trust.token("agent-7", ["agents"]))
    with wire.Connection(dsn.host, dsn.port) as connection:
        connection.login(dsn)
        run = (wire.bind(statement="s"), wire.execute(), wire.SYNC)
        first = connection.cycle(wire.parse("SELECT email FROM customers WHERE id = 1", "s"), *run)
        assert REDACTED.encode() in dict(first)["D"]
        changing.policy(STRICTER)
        wait_until("the new policy holds", lambda: row() == [(None, REDACTED)] * 2)
        second = connection.cycle(*run)
        tags = [tag for tag, _ in second]
        assert tags == ["2", "D", "C", "Z"] and dict(second)["D"].endswith(b"\xff\xff\xff\xff"), tags
    changing.policy(POLICY)


def served_certificate(gateway):
    """SHA-256 of the certificate a new client is shown."""
    context = ssl.create_default_context(cafile=str(gateway.tls.cert))
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as plain:
        plain.sendall(struct.pack("!ii", 8, wire.SSL_REQUEST))
        assert plain.recv(1) == b"S"
        with context.wrap_socket(plain, server_hostname="localhost") as encrypted:
            return hashlib.sha256(encrypted.getpeercert(binary_form=True)).hexdigest()


def replace_pair(gateway, pair):
    for source, name in ((pair.key, "server.key"), (pair.cert, "server.crt")):
        shutil.copy(source, gateway.folder / f"{name}.new")
        (gateway.folder / f"{name}.new").replace(gateway.folder / name)


def test_a_renewed_certificate_is_served_without_a_restart(fresh_gateway, authority, trust):
    gateway = fresh_gateway("renewal").listen_tls(authority).trust(trust.entry()).start()
    before = served_certificate(gateway)
    with psycopg.connect(gateway.dsn(trust.token("agent-7", ["agents"])).text(), autocommit=True) as old:
        replace_pair(gateway, authority.issue("renewed"))
        wait_until("the renewed certificate is served", lambda: served_certificate(gateway) != before)
        # Whoever was connected stays so.
        assert old.execute("SELECT 1").fetchone() == (1,)
    renewed = served_certificate(gateway)
    # A pair that does not fit together is not taken up.
    length = len(gateway.log_text())
    shutil.copy(authority.issue("half").cert, gateway.folder / "server.crt")
    wait_until("the log names the certificate", lambda: "server." in gateway.log_text()[length:])
    assert served_certificate(gateway) == renewed
    gateway.stop()
