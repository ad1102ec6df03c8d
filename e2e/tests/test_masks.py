"""Every strategy through a real server, in text and in binary, and what a tripwire finds."""

import re

import pytest

from lib.yaml_text import dump
from streams import admin

POLICY = {
    "version": 1,
    "labels": {"shop": {
        "email": ["public.customers.email"], "ssn": ["public.customers.ssn"], "born": ["public.customers.birth_date", "public.customers.created_at"],
        "city": ["public.customers.city"], "number": ["public.customers.id"],
    }},
    "rules": [
        {"id": "read", "target": "shop", "who": {"groups": ["agents", "looked-at"]}, "allow": ["read"]},
        {"id": "masks", "target": "shop", "who": {"groups": ["agents"]}, "mask": {
            "email": {"with": "token"}, "ssn": {"with": "hash"}, "born": {"with": "generalize", "to": "month"},
            "city": {"with": "partial", "first": 1}, "number": {"with": "generalize", "bucket": 100},
        }},
        {"id": "patterns", "target": "shop", "who": {"groups": ["looked-at"]}, "detect": ["email", "us_ssn"]},
    ],
}
SQL = "SELECT email, ssn, birth_date, created_at, city, id FROM customers WHERE full_name IS NOT NULL"


@pytest.fixture(scope="module")
def gateway(fresh_gateway, shop, trust):
    gateway = fresh_gateway("masks", policy=dump(POLICY)).trust(trust.entry()).start(level="debug")
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def agent(gateway, trust):
    return gateway.dsn(trust.token("agent-7", ["agents"]))


@pytest.mark.parametrize("binary", [False, True])
def test_every_strategy_is_valid_in_its_type(binary, connect, agent, shop):
    true = {(row[0], row[1]): row for row in admin(shop, SQL)}
    tokens, hashes = set(), set()
    with connect(agent).cursor(binary=binary) as cursor:
        for email, ssn, born, made, city, number in cursor.execute(SQL).fetchall():
            assert re.fullmatch(r"ext_[A-Za-z0-9_-]{30,}", email) and re.fullmatch("[0-9a-f]{32}", ssn)
            assert born.day == 1 and (made.day, made.hour, made.minute) == (1, 0, 0)
            assert re.fullmatch(r".\**", city) and number % 100 == 0
            tokens.add(email)
            hashes.add(ssn)
    assert len(tokens) == len({row[0] for row in true.values()}), "equal values, equal tokens, and no others"
    assert len(hashes) == len({row[1] for row in true.values()})


def test_tokens_are_the_same_in_every_session_format_and_restart(connect, agent, gateway):
    def seen(binary=False):
        with connect(agent).cursor(binary=binary) as cursor:
            return sorted(cursor.execute("SELECT email, ssn FROM customers").fetchall())

    first = seen()
    assert seen(binary=True) == first
    gateway.stop()
    gateway.start(level="debug")
    assert seen() == first


@pytest.mark.parametrize("binary", [False, True])
def test_a_tripwire_redacts_what_it_finds_and_nothing_else(binary, connect, gateway, trust):
    dsn = gateway.dsn(trust.token("lena", ["looked-at"]))
    with connect(dsn).cursor(binary=binary) as cursor:
        for email, ssn, _, _, city, number in cursor.execute(SQL).fetchall():
            assert email == ssn == "[redacted by exeat]"
            assert city != "[redacted by exeat]" and number > 0
        told = cursor.execute("SELECT 'x 123-45-6789', '000-45-6789', '{\"a\": \"a@b.example\"}'::jsonb, 7").fetchone()
    assert told == ("[redacted by exeat]", "000-45-6789", "[redacted by exeat]", 7)
