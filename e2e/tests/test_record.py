"""What stands on record afterwards: intent before outcome, refusals and failed logins, who and by which rules."""

import json
import signal
import threading

import psycopg
import pytest

from lib import record, wire
from lib.run import wait_until
from test_sessions import ENDLESS, active, running


def lines(gateway):
    """Every line of the log in order, checked for the shape all share."""
    texts = record.lines(gateway.data_dir)
    entries = [json.loads(text) for text in texts]
    for text, entry in zip(texts, entries, strict=True):
        # Sorted keys, no spare white space: the bytes written are the bytes hashed, and anybody can write them again.
        assert json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == text
        assert len(text.encode()) < 32 * 1024 and entry["v"] == 1 and entry["gateway"] and entry["time"].endswith("Z")
    assert [entry["seq"] for entry in entries] == list(range(entries[0]["seq"], entries[0]["seq"] + len(entries)))
    return entries


def of_type(entries, name, **body):
    return [e for e in entries if e["type"] == name and all(e["body"].get(key) == value for key, value in body.items())]


@pytest.fixture(scope="module")
def recorded(fresh_gateway, trust):
    """A gateway on which one session of each kind has been, and its lines."""
    gateway = fresh_gateway("recorded").trust(trust.entry()).start()
    dsn = gateway.dsn(trust.token("agent-7", ["agents"]))
    with wire.Connection(dsn.host, dsn.port) as connection, pytest.raises(wire.LoginRefused):
        connection.login(dsn.with_(password=trust.token("late-one", ["agents"], ttl="-1h")))
    with psycopg.connect(dsn.text(), autocommit=True, application_name="scripted") as connection:
        connection.execute("SELECT id, ssn, email FROM customers WHERE id <= 3")
        connection.execute("SELECT id FROM orders WHERE id = %s", (1,))
        for sql in ("SELECT substr(ssn, 1, 3) FROM customers", "SELECT * FROM hr.salaries", "SELECT 1/0"):
            with pytest.raises(psycopg.Error):
                connection.execute(sql)
        connection.execute("SELECT 1; SELECT 2")
    wait_until("the session's end is on record", lambda: of_type(lines(gateway), "session.end"))
    entries = lines(gateway)
    gateway.stop()
    return entries


def test_a_session_begins_with_who_and_ends(recorded):
    (start,) = of_type(recorded, "session.start")
    assert start["principal"]["sub"] == "agent-7" and start["principal"]["groups"] == ["agents"]
    assert start["target"] == "shop" and start["body"]["login"] == "shop_reader" and start["body"]["backend_pid"] > 0
    assert start["body"]["application_name"] == "scripted"
    (end,) = of_type(recorded, "session.end")
    assert end["session"] == start["session"] and end["seq"] > start["seq"]


def test_a_failed_login_is_on_record_without_its_token(recorded):
    (failure,) = of_type(recorded, "auth.fail")
    assert "expired" in failure["body"]["reason"] and "eyJ" not in json.dumps(failure)


def test_every_intent_stands_before_its_outcome(recorded):
    intents = of_type(recorded, "statement.intent", decision="allow")
    # Four messages were admitted: two reads, the division, the message of two; none of the refused ones.
    assert len(intents) == 4
    for intent in intents:
        outcomes = of_type(recorded, "statement.outcome", request_id=intent["body"]["request_id"])
        assert outcomes and all(outcome["seq"] > intent["seq"] for outcome in outcomes)
        assert [outcome["body"]["last"] for outcome in outcomes] == [False] * (len(outcomes) - 1) + [True]
        assert all(outcome["session"] == intent["session"] for outcome in outcomes)


def test_a_masked_read_names_columns_labels_and_counts(recorded):
    intent = next(e for e in of_type(recorded, "statement.intent") if e["body"].get("masked"))
    assert {m["column"]: (m["label"], m["mask"]) for m in intent["body"]["masked"]} == {
        "public.customers.ssn": ("ssn", "partial"), "public.customers.email": ("email", "redact"),
    }
    assert intent["body"]["relations"] == ["public.customers"] and "readers" in intent["body"]["rules"]
    assert intent["policy"]["sha256"] and intent["principal"]["sub"] == "agent-7"
    (outcome,) = of_type(recorded, "statement.outcome", request_id=intent["body"]["request_id"])
    assert outcome["body"]["rows"] == 3 and outcome["body"]["cells_masked"] == 6 and outcome["body"]["tag"] == "SELECT 3"
    assert outcome["body"]["result"] == "ok"


def test_refusals_are_on_record_with_code_and_rule(recorded):
    refused = of_type(recorded, "statement.intent", decision="refuse")
    assert [entry["body"]["code"] for entry in refused] == ["masked_column_in_expression", "denied"]
    assert refused[1]["body"]["rules"] == ["no-payroll"]
    for entry in refused:
        for outcome in of_type(recorded, "statement.outcome", request_id=entry["body"]["request_id"]):
            assert outcome["body"]["result"] == "refused"


def test_an_error_of_the_server_is_on_record_with_its_code(recorded):
    (outcome,) = of_type(recorded, "statement.outcome", sqlstate="22012")
    assert outcome["body"]["result"] == "error"


def test_a_message_of_two_statements_has_two_outcomes(recorded):
    outcomes = [e["body"] for e in of_type(recorded, "statement.outcome") if e["body"].get("index") == 1]
    assert len(outcomes) == 1 and outcomes[0]["tag"] == "SELECT 1" and outcomes[0]["last"]


def test_a_killed_gateway_says_afterwards_what_it_does_not_know(fresh_gateway, trust, shop):
    """kill -9 in the middle of a statement: the intent survives, and the next start closes it as unknown."""
    gateway = fresh_gateway("killed").trust(trust.entry()).start()
    connection = psycopg.connect(gateway.dsn(trust.token("agent-7", ["agents"])).text(), autocommit=True)
    pid = connection.info.backend_pid
    thread, errors = running(connection, ENDLESS)
    wait_until("the statement runs on the server", lambda: active(shop, pid))
    gateway.process.send_signal(signal.SIGKILL)
    gateway.process.wait(30)
    gateway.run.forget(gateway.process)
    thread.join(timeout=30)
    assert errors and not thread.is_alive()
    connection.close()
    intent = of_type(lines(gateway), "statement.intent")[-1]
    assert not of_type(lines(gateway), "statement.outcome", request_id=intent["body"]["request_id"])
    gateway.start()
    assert gateway.log_text().count("panicked") == 0
    after = lines(gateway)
    (recovery,) = of_type(after, "recovery")
    unknown = {"request_id": intent["body"]["request_id"], "seq": intent["seq"], "session": intent["session"]}
    assert recovery["body"]["unknown"] == [unknown]
    with psycopg.connect(gateway.dsn(trust.token("agent-7", ["agents"])).text(), autocommit=True) as again:
        again.execute("SELECT 1")
    gateway.stop()
    # The server noticed that nobody reads any more, or ends the backend when it writes: it is not ours to wait for.
    with psycopg.connect(shop.admin.text(), autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", (pid,))


def test_a_torn_last_line_is_cut_and_reported(fresh_gateway, trust):
    gateway = fresh_gateway("torn").trust(trust.entry()).start()
    with psycopg.connect(gateway.dsn(trust.token("agent-7", ["agents"])).text(), autocommit=True) as connection:
        connection.execute("SELECT 1")
    gateway.stop()
    before = lines(gateway)
    segment = sorted((gateway.data_dir / "log").iterdir())[-1]
    with open(segment, "a", encoding="utf-8") as file:
        file.write('{"body":{"half')
    gateway.start()
    after = lines(gateway)
    assert after[:len(before)] == before and of_type(after, "recovery")
    gateway.stop()


@pytest.mark.parametrize("durability", ["os", "fsync"])
def test_sessions_at_once_keep_the_order_of_the_record(fresh_gateway, trust, durability):
    """Numbers without gaps and intents before outcomes, whoever writes."""
    gateway = fresh_gateway(f"crowd-{durability}").trust(trust.entry())
    gateway.config["audit"] = {"durability": durability}
    gateway.start()

    def work(number):
        with psycopg.connect(gateway.dsn(trust.token(f"agent-{number}", ["agents"])).text(), autocommit=True) as connection:
            for _ in range(30):
                connection.execute("SELECT id, ssn FROM customers WHERE id = 1")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    wait_until("all sessions have ended on record", lambda: len(of_type(lines(gateway), "session.end")) == 6)
    entries = lines(gateway)
    intents = {e["body"]["request_id"]: e["seq"] for e in of_type(entries, "statement.intent")}
    outcomes = {e["body"]["request_id"]: e["seq"] for e in of_type(entries, "statement.outcome")}
    assert len(intents) == 180 and intents.keys() == outcomes.keys()
    assert all(intents[request] < outcomes[request] for request in intents)
    gateway.stop()
