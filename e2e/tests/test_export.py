"""The record told to others: every line byte for byte, in order, at least once, whatever happens to the gateway or to the
receiver; checkpoints as anchors among them; and nothing that waits for any of it."""

import json
import signal
import subprocess

import psycopg
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from lib import record
from lib.gateway import binary
from lib.receivers import DatagramReceiver, HttpReceiver, SyslogReceiver
from lib.run import wait_until
from test_evidence import verified

TOKEN = "Bearer e2e-collector-token"


def json_lines(body):
    return body.decode().splitlines()


def otlp(body):
    """As the official mapping of the protocol to JSON reads it."""
    request = json_format.Parse(body, ExportLogsServiceRequest())
    texts = []
    for resource in request.resource_logs:
        said = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
        assert said["service.name"] == "exeat" and said["service.instance.id"].startswith("e2e-")
        for entry in (entry for scope in resource.scope_logs for entry in scope.log_records):
            event = json.loads(entry.body.string_value)
            attributes = {pair.key: pair.value for pair in entry.attributes}
            assert attributes["exeat.type"].string_value == event["type"] and entry.event_name == f"exeat.{event['type']}"
            assert "seq" not in event or attributes["exeat.seq"].int_value == event["seq"]
            assert "session" not in event or attributes["exeat.session"].string_value == event["session"]
            assert entry.time_unix_nano > 1_700_000_000 * 10**9 and entry.severity_number in (9, 13)
            texts.append(entry.body.string_value)
    return texts


def receiver(kind, authority):
    if kind == "udp":
        return DatagramReceiver()
    if kind in ("tcp", "tls"):
        return SyslogReceiver(authority.issue("syslog") if kind == "tls" else None)
    return HttpReceiver(otlp if kind == "otlp" else json_lines)


def export(kind, at, gateway, authority):
    """An entry of `audit.export`."""
    if kind in ("tcp", "tls", "udp"):
        host = "localhost" if kind == "tls" else "127.0.0.1"
        entry = {"address": f"{kind}://{host}:{at.port}", **({"ca": str(authority.cert)} if kind == "tls" else {})}
        return {"name": f"by-{kind}", "syslog": entry}
    url = gateway.run.secret_file(f"{gateway.name}.{kind}.url", f"http://127.0.0.1:{at.port}{'' if kind == 'otlp' else '/in?key=1'}\n")
    token = gateway.run.secret_file(f"{gateway.name}.{kind}.token", TOKEN)
    return {"name": f"by-{kind}", kind: {"url": {"file": str(url)}, "headers": {"Authorization": {"file": str(token)}}}}


def exporting(fresh_gateway, trust, authority, name, kinds):
    """A gateway, not started, and what it tells."""
    gateway = fresh_gateway(name).trust(trust.entry())
    receivers = {kind: receiver(kind, authority) for kind in kinds}
    gateway.config["audit"] = {"export": [export(kind, at, gateway, authority) for kind, at in receivers.items()]}
    return gateway, receivers


def say(gateway, trust, many=30):
    with psycopg.connect(gateway.dsn(trust.token("agent-7", ["agents"])).text(), autocommit=True) as connection:
        for number in range(many):
            connection.execute("SELECT id, ssn FROM customers WHERE id = %s", [number])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM hr.salaries")


def on_record(gateway):
    return record.lines(gateway.data_dir)


def wait_told(gateway, receivers, seconds=60):
    for kind, at in receivers.items():
        wait_until(f"{kind} has everything", lambda at=at: len(at.lines()) >= len(on_record(gateway)), seconds=seconds)
        told = at.lines()
        assert told == on_record(gateway)[:len(told)], f"{kind}: every line, byte for byte and in order"


def test_every_line_arrives_in_order_with_the_checkpoints(fresh_gateway, trust, authority):
    kinds = ["tcp", "tls", "udp", "http", "otlp"]
    gateway, receivers = exporting(fresh_gateway, trust, authority, "exporting", kinds)
    gateway.start()
    for _ in range(2):
        say(gateway, trust)
        wait_told(gateway, receivers)
    for kind, at in receivers.items():
        wait_until(f"{kind} has a checkpoint", lambda at=at: at.checkpoints() and at.checkpoints()[-1]["records"] > 60)
        assert gateway.readiness()["checks"][f"export by-{kind}"]["state"] == "ok"
        # Nothing of it holds what a client sent or was sent.
        assert "SELECT id, ssn" not in "".join(at.told())
    for kind, path in (("http", "/in?key=1"), ("otlp", "/v1/logs")):
        assert set(receivers[kind].requests) == {(path, TOKEN)}
    gateway.stop()
    # What was told of a checkpoint is an anchor.
    note = gateway.run.path("exported.checkpoint")
    for at in receivers.values():
        note.write_text(at.checkpoints()[-1]["note"])
        status, found = verified(gateway.data_dir, "--checkpoint", note)
        assert status == 0 and found["extends"], found
        at.close()


@pytest.mark.parametrize("kind", ["tcp", "tls", "http", "otlp"])
def test_nothing_is_missing_after_kills_and_absent_receivers(fresh_gateway, trust, authority, kind):
    gateway, receivers = exporting(fresh_gateway, trust, authority, f"exporting-{kind}", [kind])
    at = receivers[kind]
    gateway.start()
    say(gateway, trust)
    at.close()
    say(gateway, trust)
    wait_until("it is said", lambda: gateway.readiness()["checks"][f"export by-{kind}"]["state"] == "degraded")
    # It is nobody's business who wants to work.
    assert gateway.ready()[0] == 200
    for _ in range(3):
        before = len(at.told())
        at.open()
        wait_until("something arrives", lambda: len(at.told()) > before, seconds=60)
        say(gateway, trust)
        gateway.process.send_signal(signal.SIGKILL)
        gateway.process.wait(30)
        gateway.run.forget(gateway.process)
        at.close()
        gateway.start()
        say(gateway, trust)
    at.open()
    wait_told(gateway, receivers)
    if kind in ("http", "otlp"):
        at.refuses = True
        say(gateway, trust)
        wait_until("a refusal counts", lambda: gateway.readiness()["checks"][f"export by-{kind}"]["state"] == "degraded")
        at.refuses = False
        wait_told(gateway, receivers)
    # What has arrived is not told again for ever: the cursor says so.
    cursor = gateway.data_dir / "export" / f"by-{kind}"
    wait_until("the cursor moves", lambda: cursor.exists() and json.loads(cursor.read_text())["next"] > len(on_record(gateway)) // 2)
    assert json.loads(cursor.read_text())["log"] == gateway.config["name"]
    gateway.stop()
    at.close()


def test_a_syslog_connection_is_confirmed_and_not_told_again(fresh_gateway, trust, authority):
    gateway, receivers = exporting(fresh_gateway, trust, authority, "confirmed", ["tcp"])
    gateway.start()
    say(gateway, trust)
    cursor = gateway.data_dir / "export" / "by-tcp"
    wait_until("it is confirmed", lambda: cursor.exists() and json.loads(cursor.read_text())["next"] >= 60, seconds=30)
    gateway.stop()
    confirmed = json.loads(cursor.read_text())["next"]
    before = len(receivers["tcp"].told())
    gateway.start()
    wait_told(gateway, receivers)
    again = [json.loads(text) for text in receivers["tcp"].told()[before:]]
    assert min(event["seq"] for event in again if "seq" in event) >= confirmed
    gateway.stop()
    receivers["tcp"].close()


def test_mistakes_are_named_and_secrets_are_not(fresh_gateway, trust):
    gateway = fresh_gateway("exporting-wrong").trust(trust.entry())
    far = gateway.run.secret_file("exporting-wrong.url", "http://collector.example.com/literal-secret")
    for entry, words in [
        ({"syslog": {"address": "10.0.0.1:514"}}, "tls://HOST:PORT"),
        ({"http": {"url": "https://x/literal-secret"}}, "do not stand in this file"),
        ({"http": {"url": {"file": str(far)}}}, "neither https nor http"),
        ({"http": {"url": {"env": "X"}, "headers": {"Authorization": "literal-secret"}}}, "do not stand in this file"),
        ({"otlp": {"url": {"env": "X"}}, "http": {"url": {"env": "X"}}}, "one kind of receiver"),
        ({"name": "../x", "syslog": {"address": "tcp://h:1"}}, "is no name for an export"),
    ]:
        gateway.config["audit"] = {"export": [entry]}
        gateway.write_config()
        done = subprocess.run([binary(), "check", "--config", gateway.config_file], capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 1 and words in said and "literal-secret" not in said, said
    gateway.config["audit"] = {"export": [{"syslog": {"address": "tcp://h:1"}}, {"syslog": {"address": "tcp://h:2"}}]}
    gateway.write_config()
    done = subprocess.run([binary(), "check", "--config", gateway.config_file], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "a `name` of its own" in done.stderr, done
