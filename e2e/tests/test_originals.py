"""`sealed_originals`: what the server said, where the client heard something else, is for the auditors alone."""

import base64
import json

import psycopg
import pytest

from lib import record
from lib.age import Key
from streams import TABLES, admin, writers_policy

SECRET = "777-66-5555"
CODE = """
DROP SCHEMA IF EXISTS telling CASCADE;
CREATE SCHEMA telling;
CREATE TABLE telling.people (id integer CHECK (id > 0), ssn text);
CREATE FUNCTION telling.say() RETURNS trigger LANGUAGE plpgsql AS
  $$BEGIN RAISE NOTICE 'heard of %', NEW.ssn; RETURN NEW; END$$;
CREATE TRIGGER say BEFORE INSERT ON telling.people FOR EACH ROW EXECUTE FUNCTION telling.say();
GRANT USAGE ON SCHEMA telling TO PUBLIC;
GRANT SELECT, INSERT ON telling.people TO shop_reader;
"""
TRUST = {"triggers": ["telling.people.say"]}
INSERT = f"INSERT INTO telling.people VALUES (%s, '{SECRET}')"


@pytest.fixture
def told(fresh_gateway, shop, trust, request):
    """Makes gateways with `audit` as given; gives back one and what a writer heard there."""
    admin(shop, TABLES)
    admin(shop, CODE)
    made = []

    def make(audit):
        text = writers_policy().replace('"public.customers.ssn"', '"public.customers.ssn", "telling.people.ssn"')
        gateway = fresh_gateway(f"{request.node.name}{len(made)}", policy=text).trust(trust.entry())
        gateway.config["targets"]["shop"]["postgres"]["trust"] = TRUST
        gateway.config["audit"] = audit
        made.append(gateway.start(level="debug"))
        heard = []
        with psycopg.connect(gateway.dsn(trust.token("wendy", ["writers"])).text(), autocommit=True) as writer:
            writer.add_notice_handler(lambda notice: heard.append(notice.message_primary))
            writer.execute(INSERT, (1,))
            with pytest.raises(psycopg.errors.CheckViolation) as caught:
                writer.execute(INSERT, (-1,))
            heard.append(str(caught.value))
            with pytest.raises(psycopg.errors.CheckViolation) as caught:
                writer.execute(f"INSERT INTO telling.people VALUES (-2, '{SECRET}')".encode(), prepare=False)
            heard.append(str(caught.value))
        assert SECRET not in str(heard)
        return gateway

    yield make
    for gateway in made:
        gateway.stop()
    admin(shop, "DROP SCHEMA telling CASCADE")


def entries(gateway):
    return record.events(gateway.data_dir)


def test_originals_are_for_the_auditors_alone(told):
    keys = [Key(), Key()]
    gateway = told({"sealed_originals": True, "auditors": [key.public for key in keys]})
    lines = entries(gateway)
    withheld = [line for line in lines if line["type"] == "message.withheld"]
    assert [line["body"]["kind"] for line in withheld].count("error") == 2
    assert [line["body"]["kind"] for line in withheld].count("notice") == 3
    intents = {line["body"]["request_id"] for line in lines if line["type"] == "statement.intent"}
    for line in withheld:
        assert line["body"]["request_id"] in intents and line["principal"]["sub"] == "wendy"
        for key in keys:
            original = json.loads(key.open(base64.b64decode(line["body"]["original"])))
            if line["body"]["kind"] == "notice":
                assert original["M"] == f"heard of {SECRET}"
            else:
                assert original["C"] == "23514" and SECRET in original["D"]
        with pytest.raises(ValueError, match="not sealed for this key"):
            Key().open(base64.b64decode(line["body"]["original"]))
    # An error's own words stand behind its outcome.
    for line in withheld:
        if line["body"]["kind"] == "error":
            before = [other for other in lines if other["seq"] < line["seq"] and other["type"] == "statement.outcome"]
            assert before[-1]["body"]["request_id"] == line["body"]["request_id"]
    for path in gateway.data_dir.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in gateway.log_text()


def test_without_it_nothing_is_kept(told):
    gateway = told({"durability": "os"})
    assert not [line for line in entries(gateway) if line["type"] == "message.withheld"]
    for path in gateway.data_dir.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
