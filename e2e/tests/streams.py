"""Tables to write to, and principals that may: for the tests of COPY, notifications and large values."""

import struct

import psycopg

from lib import wire
from lib.yaml_text import dump
from spine import policy

# Beside `agents`, who read with masks: writers see the same masks and may write.
WRITERS = [
    {
        "id": "writers", "who": {"groups": ["writers"]}, "target": "shop",
        "allow": ["read", "insert", "update", "delete", "copy_in"],
    },
    {"id": "callers", "who": {"groups": ["callers"]}, "target": "shop", "allow": ["read", "function_call"]},
    {"id": "large", "who": {"groups": ["large"]}, "target": "shop", "allow": ["read", "function_call", "reader"]},
    {
        "id": "mask-writers", "who": {"groups": ["writers", "callers", "large"]}, "target": "shop",
        "mask": {"email": {"with": "redact"}, "ssn": {"with": "redact"}, "phone": {"with": "nullify"}},
    },
]
TABLES = """
CREATE TABLE IF NOT EXISTS notes (id integer PRIMARY KEY CHECK (id < 1000000), body text, made integer DEFAULT 7);
CREATE TABLE IF NOT EXISTS tags (id integer, name text);
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON notes, tags TO shop_reader, shop_dpo;
"""


def writers_policy(more=()):
    return policy(more=[*WRITERS, *more])


def callers_policy():
    """Without a `deny`: one that is limited to relations forbids what may reach any of them."""
    labels = {"email": ["public.customers.email"], "ssn": ["public.customers.ssn"], "phone": ["public.customers.phone"]}
    return dump({"version": 1, "labels": {"shop": labels}, "rules": WRITERS})


def serving(fresh_gateway, shop, trust, name, text=None):
    """For a fixture: a gateway with the tables to write to, under the policy `text` or that of the writers."""
    admin(shop, TABLES)
    gateway = fresh_gateway(name, policy=text or writers_policy()).trust(trust.entry()).start(level="debug")
    yield gateway
    gateway.stop()


def session(dsn):
    """A connection of our own protocol client, logged in."""
    return wire.Connection(dsn.host, dsn.port, ca=dsn.sslrootcert).login(dsn)


def tags_of(messages):
    """One letter per message; an error with its SQLSTATE."""
    return [wire.error_fields(body)["C"] if tag == "E" else tag for tag, body in messages]


def copy_data(text):
    return wire.message("d", text.encode() if isinstance(text, str) else text)


COPY_DONE = wire.message("c")


def copy_fail(reason="no more"):
    return wire.message("f", wire.cstring(reason))


def function_call(oid, *arguments, result=0):
    """Arguments in binary."""
    body = struct.pack("!IhhH", oid, 1, 1, len(arguments))
    body += b"".join(struct.pack("!i", len(value)) + value for value in arguments)
    return wire.message("F", body + struct.pack("!h", result))


def admin(shop, sql, parameters=None):
    """Rows, where the statement returns some, as the database's owner."""
    with psycopg.connect(shop.admin.text(), autocommit=True) as connection:
        cursor = connection.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else None
