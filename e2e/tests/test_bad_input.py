"""What goes wrong is said: the object and its kind, the limit or value, the next step. One test per way to go wrong."""

import json
import re
import shutil
import socket
import subprocess

import psycopg
import pytest

from lib import tokens, wire
from lib.certificates import Authority
from lib.dsn import psql
from lib.run import free_port, wait_until
from spine import POLICY


def program_says(program, *arguments, folder=None):
    """Runs the program to its end, which must be a failure, and returns its words. No panic, no backtrace."""
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60, cwd=folder,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode in (1, 2), (done.returncode, done.stderr)
    assert "panicked" not in done.stderr and "RUST_BACKTRACE" not in done.stderr
    return done.stderr


def serve_says(gateway, program):
    """The same for `serve` with this gateway's configuration."""
    gateway.write_config()
    return program_says(program, "serve", "--config", gateway.config_file, folder=gateway.folder)


def assert_words(text, *words):
    missing = [word for word in words if word not in text]
    assert not missing, f"{missing} not in: {text[-3000:]}"


def fatal(dsn):
    with wire.Connection(dsn.host, dsn.port, ca=dsn.sslrootcert) as connection, pytest.raises(wire.LoginRefused) as caught:
        connection.login(dsn)
    return caught.value.fields


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_configuration_that_cannot_be_read(program, tmp_path, command):
    missing = tmp_path / "nowhere.yaml"
    assert_words(program_says(program, command, "--config", missing), str(missing), "No such file")
    assert_words(program_says(program, command, "--config", tmp_path), str(tmp_path))


def test_a_configuration_with_typos_shows_all_of_them_and_where(program, fresh_gateway, trust):
    gateway = fresh_gateway("typos").trust(trust.entry())
    gateway.write_config()
    text = gateway.config_file.read_text().replace("data_dir:", "data_dirr:").replace("logins:", "login:")
    gateway.config_file.write_text(text)
    said = program_says(program, "check", "--config", gateway.config_file)
    line = 1 + text[:text.index("data_dirr")].count("\n")
    assert_words(said, "exeat.yaml", "data_dirr", "data_dir", "login", "logins", "^", f":{line}:")


def test_a_literal_secret_in_the_configuration_is_refused(program, fresh_gateway, trust):
    gateway = fresh_gateway("literal").trust(trust.entry())
    gateway.config["targets"]["shop"]["postgres"]["logins"][0]["password"] = "hunter2-hunter2"
    said = serve_says(gateway, program)
    assert_words(said, "password", "env", "file")


def test_an_unencrypted_listener_off_loopback_is_refused(program, fresh_gateway, trust):
    gateway = fresh_gateway("exposed").trust(trust.entry())
    gateway.config["listen"]["postgres"]["address"] = f"0.0.0.0:{gateway.port}"
    assert_words(serve_says(gateway, program), "tls: off", "loopback", "127.0.0.1")


def test_a_port_in_use(program, fresh_gateway, trust):
    gateway = fresh_gateway("occupied").trust(trust.entry())
    with socket.create_server(("127.0.0.1", gateway.port)):
        said = serve_says(gateway, program)
    assert_words(said, f"127.0.0.1:{gateway.port}", "in use")


def test_a_policy_with_a_typo(program, fresh_gateway, trust):
    gateway = fresh_gateway("policy-typo", policy=POLICY.replace("rules:", "rulez:")).trust(trust.entry())
    assert_words(serve_says(gateway, program), "policy.yaml", "rulez", "rules", "^")


def test_a_policy_with_a_label_nobody_defined(program, fresh_gateway, trust):
    gateway = fresh_gateway("policy-label", policy=POLICY.replace('"ssn": {', '"snn": {')).trust(trust.entry())
    assert_words(serve_says(gateway, program), "policy.yaml", "snn", "ssn")


def test_a_key_file_that_is_not_there(program, fresh_gateway, trust):
    entry = {**trust.entry(), "jwks_file": "/nowhere/jwks.json"}
    gateway = fresh_gateway("no-keys").trust(entry)
    assert_words(serve_says(gateway, program), "/nowhere/jwks.json")


def test_a_listener_whose_certificate_and_key_do_not_match(program, fresh_gateway, authority, trust):
    gateway = fresh_gateway("mismatch").listen_tls(authority).trust(trust.entry())
    shutil.copy(authority.issue("another").key, gateway.folder / "server.key")
    assert_words(serve_says(gateway, program), "server.crt", "server.key", "match")


def test_a_password_file_that_is_not_there(program, fresh_gateway, trust):
    gateway = fresh_gateway("no-password").trust(trust.entry())
    gateway.config["targets"]["shop"]["postgres"]["logins"][0]["password"] = {"file": "/nowhere/pw"}
    gateway.write_config()
    said = program_says(program, "check", "--config", gateway.config_file)
    assert_words(said, "/nowhere/pw")


def refused_for_the_target(gateway, trust):
    """A target out of reach: the client hears which one, the operator's log why; the readiness page shows it."""
    fields = fatal(gateway.dsn(trust.token("agent-7", ["agents"])))
    assert fields["C"] == "58030" and '"shop"' in fields["M"], fields
    assert str(gateway.config["targets"]["shop"]["postgres"]["port"]) not in str(fields)
    # It has been looked at, and was not reached.
    wait_until("readiness shows the target", lambda: gateway.readiness()["checks"].get("target shop", {}).get("state") == "failed")
    return gateway.log_text()


def launched(gateway):
    """Started but perhaps not ready: a target may be down while the gateway is up."""
    gateway.launch()
    wait_until(f"{gateway.name} is alive", lambda: gateway.console("/livez")[0] == 200, alive=gateway.process)
    return gateway


def test_an_upstream_nobody_listens_on(program, fresh_gateway, trust):
    gateway = fresh_gateway("unreachable").trust(trust.entry())
    port = free_port()
    gateway.config["targets"]["shop"]["postgres"]["port"] = port
    log = refused_for_the_target(launched(gateway), trust)
    assert_words(log, "shop", str(port), "refused")
    gateway.stop()


def test_an_upstream_that_wants_another_password(program, fresh_gateway, trust, run):
    gateway = fresh_gateway("wrong-password").trust(trust.entry())
    wrong = run.secret_file("wrong.pw", "not-the-password")
    for login in gateway.config["targets"]["shop"]["postgres"]["logins"]:
        login["password"] = {"file": str(wrong)}
    log = refused_for_the_target(launched(gateway), trust)
    assert_words(log, "shop_reader", "password")
    assert "not-the-password" not in log
    gateway.stop()


def test_an_upstream_that_is_no_postgres(program, fresh_gateway, trust):
    gateway = fresh_gateway("no-postgres").trust(trust.entry())
    # Its own console: answers HTTP to a TLS request of PostgreSQL's kind.
    gateway.config["targets"]["shop"]["postgres"]["port"] = gateway.console_port
    log = refused_for_the_target(launched(gateway), trust)
    assert_words(log, "shop", str(gateway.console_port))
    gateway.stop()


def test_an_upstream_certificate_of_another_authority(program, fresh_gateway, trust, run):
    gateway = fresh_gateway("wrong-ca").trust(trust.entry())
    stranger = Authority(run.path("stranger-ca"), "somebody else")
    gateway.config["targets"]["shop"]["postgres"]["ca"] = str(stranger.cert)
    log = refused_for_the_target(launched(gateway), trust)
    assert_words(log, "localhost", "certificate")
    gateway.stop()


def test_an_upstream_certificate_for_another_name(program, fresh_gateway, trust):
    gateway = fresh_gateway("wrong-name").trust(trust.entry())
    gateway.config["targets"]["shop"]["postgres"]["host"] = "127.0.0.2"
    log = refused_for_the_target(launched(gateway), trust)
    assert_words(log, "127.0.0.2", "certificate")
    gateway.stop()


def test_a_database_that_does_not_exist_yet(program, fresh_gateway, trust, server):
    """The gateway starts, says so, and serves when the database is made."""
    gateway = launched(fresh_gateway("too-early", database="later").trust(trust.entry()))
    dsn = gateway.dsn(trust.token("agent-7", ["agents"]))
    assert fatal(dsn)["C"] == "58030"
    psql(server.admin(), "CREATE DATABASE later")
    wait_until("the gateway serves the new database", lambda: psql(dsn, "SELECT 1", check=False).returncode == 0)
    gateway.stop()


def test_an_unknown_target_is_named_and_the_known_ones_are_not(fresh_gateway, trust):
    gateway = fresh_gateway("unknown-target").trust(trust.entry())
    # Without a default, a database names its target.
    del gateway.config["listen"]["postgres"]["default_target"]
    gateway.start()
    fields = fatal(gateway.dsn(trust.token("agent-7", ["agents"]), dbname="shoop"))
    assert fields["S"] == "FATAL" and '"shoop"' in fields["M"], fields
    assert fields.get("H"), fields
    gateway.stop()


def test_an_expired_token_says_since_when_and_what_to_do(plain, trust):
    fields = fatal(plain.dsn(trust.token("agent-7", ["agents"], ttl="-1h")))
    text = " ".join(fields.get(name, "") for name in "MDH")
    assert fields["C"] == "28000" and "expired" in text and re.search(r"\d{4}-\d\d-\d\d", text) and "new" in text, fields


def test_too_many_failed_logins_from_one_source(fresh_gateway, trust):
    gateway = fresh_gateway("guessing").trust(trust.entry())
    gateway.config["listen"]["postgres"]["limits"]["failed_logins"] = "5/min"
    gateway.start()
    good = gateway.dsn(trust.token("agent-7", ["agents"]))
    answers = [fatal(good.with_(password="guess")) for _ in range(6)]
    assert [fields["C"] for fields in answers] == ["28P01"] * 5 + ["28000"]
    assert not any("too many" in fields["M"] for fields in answers[:5]), answers
    assert "too many failed logins" in answers[5]["M"] and "minute" in answers[5]["H"], answers
    # Who guesses is not told by the difference that a good token was among the guesses.
    assert fatal(good)["M"] == answers[5]["M"]
    gateway.stop()


# On the larger one there is room to reserve ahead, on the smaller one every event is written through.
@pytest.fixture(params=[1, 8], ids=["1MiB", "8MiB"])
def small_disk(run, request):
    """A file system of a few megabytes; needs the right to mount one."""
    folder = run.path(f"small-disk-{request.param}")
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={request.param}m,mode=700", "tmpfs", str(folder)],
        capture_output=True, text=True, check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"cannot mount a small tmpfs here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_stops_statements_and_not_the_gateway(fresh_gateway, trust, small_disk):
    """No durable record, no statement: refused with 58030, shown in readiness, over when there is room again."""
    gateway = fresh_gateway(f"full-{small_disk.name}").trust(trust.entry())
    gateway.config["data_dir"] = str(small_disk / "data")
    gateway.start()
    filler = small_disk / "filler"
    with psycopg.connect(gateway.dsn(trust.token("agent-7", ["agents"])).text(), autocommit=True) as connection:
        connection.execute("SELECT 1")
        fill(filler)

        def refused():
            try:
                # Many a turn: there may be room reserved for a thousand more.
                for _ in range(200):
                    connection.execute("SELECT 1")
            except psycopg.Error as error:
                return error
            return None

        error = wait_until("a statement is refused for want of a record", refused)
        assert error.sqlstate == "58030", error
        # A disk that fills up costs the statement and not the session: what is left is for its end, and to say so.
        assert error.diag.severity == "ERROR" and json.loads(error.diag.message_detail)["code"] == "not_enforceable"
        assert not connection.broken
        wait_until("readiness shows it", lambda: refused() and gateway.ready()[0] == 503)
        assert_words(gateway.log_text(), "bytes left for the record; make room there")
        filler.unlink()
        wait_until("the gateway is ready again", lambda: gateway.ready()[0] == 200)
    with psycopg.connect(gateway.dsn(trust.token("agent-7", ["agents"])).text(), autocommit=True) as connection:
        connection.execute("SELECT 1")
    gateway.stop()


def fill(path):
    """Writes until the file system is full to the last byte."""
    with open(path, "wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            while True:
                try:
                    if file.write(b"x" * size) < size:
                        break
                except OSError:
                    break


def test_a_token_mistyped_in_the_harness_is_said(tmp_path):
    """Our own tool keeps the same rule."""
    with pytest.raises(tokens.HarnessError, match="12h"):
        tokens.seconds("12 hours")
