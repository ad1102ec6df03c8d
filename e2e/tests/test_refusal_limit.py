"""`limit: {refusals: N}`: whoever is refused too often is refused everything but the end of a transaction, on every
connection, until the window has moved on or somebody sets it back."""

import json
import os
import subprocess

import psycopg
import pytest

from lib.gateway import binary
from lib.yaml_text import dump

POLICY = dump({
    "version": 1,
    "labels": {"shop": {"card": ["public.payments.card_number"]}},
    "rules": [
        {"id": "all", "who": {"groups": ["agents"]}, "target": "shop", "allow": ["read"]},
        {"id": "mask", "who": {"groups": ["agents"]}, "target": "shop", "mask": {"card": {"with": "redact"}}},
        {"id": "patience", "who": {"groups": ["agents"]}, "target": "shop", "limit": {"refusals": 3, "window": "1h"}},
    ],
})
REFUSED = "SELECT id FROM payments WHERE card_number > '4'"
ALLOWED = "SELECT count(*) FROM payments"


@pytest.fixture(scope="module")
def counted(fresh_gateway, trust):
    made = fresh_gateway("patience", policy=POLICY).trust(trust.entry())
    made.config["console"] = {"roles": {"admin": ["ops"]}}
    made.start(level="debug")
    yield made
    made.stop()


def code(connection, sql):
    """Of the refusal; None where it ran."""
    try:
        connection.execute(sql)
    except psycopg.Error as error:
        return json.loads(error.diag.message_detail)["code"]
    return None


def test_too_many_refusals_refuse_everything_on_every_connection(counted, trust):
    def connect(who):
        return psycopg.connect(counted.dsn(trust.token(who, ["agents"])).text(), autocommit=True)

    with connect("prober") as first, connect("other") as other:
        for _ in range(2):
            assert code(first, REFUSED) == "masked_column_in_predicate"
        assert code(first, ALLOWED) is None
    with connect("prober") as second, connect("other") as other:
        assert code(second, ALLOWED) is None, "two of three"
        second.execute("BEGIN")
        assert code(second, REFUSED) == "masked_column_in_predicate"
        second.execute("ROLLBACK")
        for sql in (ALLOWED, "SELECT 1", "SHOW search_path"):
            assert code(second, sql) == "refusal_limit", sql
        with pytest.raises(psycopg.Error) as limit:
            second.execute(ALLOWED)
        assert limit.value.sqlstate == "53400" and json.loads(limit.value.diag.message_detail)["retry"]["resets_at"]
        with connect("prober") as third:
            assert code(third, ALLOWED) == "refusal_limit"
        assert code(other, ALLOWED) is None, "somebody else's are their own"
        environment = {**os.environ, "EXEAT_URL": counted.console_url(), "EXEAT_TOKEN": trust.token("boss", ["ops"])}
        reset = [binary(), "limits", "reset", "--principal", "prober"]
        subprocess.run(reset, env=environment, check=True, capture_output=True, timeout=60)
        with connect("prober") as fourth:
            assert code(fourth, ALLOWED) is None
