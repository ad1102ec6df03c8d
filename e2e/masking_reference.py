#!/usr/bin/env python3
"""Random rows of every type, masked by the gateway's own code and by this page, which shares nothing with it.

    masking_reference.py PROGRAM [--rows 20000] [--seed N]

PROGRAM is the example `mask_rows`. Text and binary rows, and COPY in its three formats cut anywhere; prints the seed,
and the first difference if there is one.
"""

import argparse
import base64
import datetime
import decimal
import hashlib
import hmac
import ipaddress
import json
import random
import struct
import subprocess
import sys
import threading
import uuid

from masking_aes import Siv

REDACTED = b"[redacted by exeat]"
SEEN = 64 * 1024
NULL = None


def derived(purpose):
    told = b"".join(struct.pack(">Q", len(part)) + part for part in (purpose, b"shop", b"ssn"))
    return hmac.digest(bytes(32), told, "sha256")


HASH_KEY = derived(b"hash v1")
SIV = Siv(derived(b"token mac v1") + derived(b"token encryption v1"))
KEY_ID = derived(b"token key id v1")[:3]


def digest(value):
    told = b"\0" if value is NULL else b"\1" + value
    return hmac.digest(HASH_KEY, told, hashlib.sha256)[:16]


def token(value):
    header = b"exeat token v1 null" if value is NULL else b"exeat token v1"
    sealed = b"\1" + KEY_ID + SIV.seal(header, value or b"")
    return b"ext_" + base64.urlsafe_b64encode(sealed).rstrip(b"=")


# Types: oid, and how to make a value and write it down. A value is (meaning, text, binary).

WORDS = ["", "a", "żółw", "anna@example.com", "123-45-6789", "\\N", "tab\there", 'quote"d', "line\nbreak", "a,b;c|d", "🦀", "\x0b\b\f\r", "\\."]


def texts(rng):
    if rng.random() < 0.01:
        return rng.choice(["x", "ż"]) * rng.choice([SEEN // 2, SEEN - 1, SEEN, SEEN + 1])
    return "".join(rng.choice(WORDS) for _ in range(rng.randrange(4)))


def a_text(rng):
    value = texts(rng).encode()
    if rng.random() < 0.03:
        value += b"\xff"
    return value, value, value


def a_name(rng):
    value = texts(rng).encode()[:63].decode(errors="ignore").encode()
    return value, value, value


def a_padded(rng):
    value = (texts(rng) + " " * rng.randrange(4)).encode()
    return value, value, value


def a_json(rng):
    value = json.dumps({"a": texts(rng)}, ensure_ascii=False).encode()
    return value, value, value


def a_jsonb(rng):
    value, _, _ = a_json(rng)
    return value, value, b"\1" + value


def a_bytea(rng):
    value = rng.randbytes(rng.randrange(40))
    if rng.random() < 0.5:
        return value, b"\\x" + value.hex().encode(), value
    escaped = "".join(
        "\\\\" if byte == 92 else chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in value
    )
    return value, escaped.encode(), value


def a_uuid(rng):
    value = uuid.UUID(bytes=rng.randbytes(16))
    return value.bytes, str(value).encode(), value.bytes


EPOCH = datetime.date(2000, 1, 1).toordinal()


def a_day(rng):
    return rng.randrange(1, datetime.date(9999, 12, 31).toordinal())


def a_date(rng):
    if rng.random() < 0.05:
        forever = rng.choice([1, -1])
        return NULL, b"infinity" if forever > 0 else b"-infinity", struct.pack(">i", 2**31 - 1 if forever > 0 else -(2**31))
    day = a_day(rng)
    return day, datetime.date.fromordinal(day).isoformat().rjust(10, "0").encode(), struct.pack(">i", day - EPOCH)


def a_timestamp(rng):
    day, micros = a_day(rng), rng.choice([0, 1, rng.randrange(86_400_000_000), 86_399_999_999])
    clock = datetime.time(micros // 3_600_000_000, micros // 60_000_000 % 60, micros // 1_000_000 % 60, micros % 1_000_000)
    text = f"{datetime.date.fromordinal(day).isoformat()} {clock.isoformat()}".rstrip("0") if micros % 1_000_000 else (
        f"{datetime.date.fromordinal(day).isoformat()} {clock.isoformat()}"
    )
    return day, text.encode(), struct.pack(">q", (day - EPOCH) * 86_400_000_000 + micros)


def a_timestamptz(rng):
    day, seconds = a_day(rng) + 2, rng.randrange(86_400)
    day = min(day, datetime.date(9999, 12, 29).toordinal())
    offset = rng.choice([0, 3600, -3600, 7200, 12_600, -34_200, 1172])
    local = day * 86_400 + seconds + offset
    there, clock = datetime.date.fromordinal(local // 86_400), local % 86_400
    size = abs(offset)
    shown = f"{'-' if offset < 0 else '+'}{size // 3600:02}"
    shown += f":{size // 60 % 60:02}" if size % 3600 else ""
    shown += f":{size % 60:02}" if size % 60 else ""
    text = f"{there.isoformat()} {clock // 3600:02}:{clock // 60 % 60:02}:{clock % 60:02}{shown}"
    return day, text.encode(), struct.pack(">q", ((day - EPOCH) * 86_400 + seconds) * 1_000_000)


def an_integer(bits):
    def make(rng):
        edge = 2 ** (bits - 1)
        value = rng.choice([0, 1, -1, edge - 1, -edge, rng.randrange(-edge, edge), rng.randrange(-10_000, 10_000)])
        return value, str(value).encode(), value.to_bytes(bits // 8, "big", signed=True)
    return make


def a_float(code):
    def make(rng):
        value = rng.choice([0.0, -0.0, float("nan"), float("inf"), rng.uniform(-1e6, 1e6), rng.uniform(-1, 1), 1e15, 1e300, -2.5])
        if code == "f" and abs(value) > 1e30 and value == value and abs(value) != float("inf"):
            value = 1e30
        binary = struct.pack(">" + code, value)
        value = struct.unpack(">" + code, binary)[0]
        text = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(repr(value), repr(value))
        return value, text.encode(), binary
    return make


def numeric_binary(value):
    if not value.is_finite():
        return struct.pack(">HhHH", 0, 0, 0xC000, 0)
    sign, digits, exponent = value.as_tuple()
    scale = max(0, -exponent)
    whole = "".join(map(str, digits)) + "0" * max(0, exponent)
    whole = whole.rjust(scale + 1, "0")
    front, back = (whole[:-scale], whole[-scale:]) if scale else (whole, "")
    front = front.rjust(-(-len(front) // 4) * 4, "0")
    back = back.ljust(-(-len(back) // 4) * 4, "0")
    groups = [int((front + back)[at:at + 4]) for at in range(0, len(front + back), 4)]
    weight = len(front) // 4 - 1
    while groups and groups[0] == 0:
        groups, weight = groups[1:], weight - 1
    while groups and groups[-1] == 0:
        groups = groups[:-1]
    if not groups:
        sign, weight = 0, 0
    return struct.pack(">HhHH", len(groups), weight, 0x4000 if sign else 0, scale) + b"".join(struct.pack(">H", g) for g in groups)


def a_numeric(rng):
    if rng.random() < 0.03:
        return NULL, b"NaN", struct.pack(">HhHH", 0, 0, 0xC000, 0)
    digits = rng.randrange(10 ** rng.randrange(1, 60)) * rng.choice([1, -1])
    value = decimal.Decimal(digits).scaleb(-rng.randrange(0, 12))
    return value, f"{value:f}".encode(), numeric_binary(value)


def an_address(rng):
    if rng.random() < 0.5:
        address, family = ipaddress.IPv4Address(rng.randbytes(4)), 2
    else:
        address, family = ipaddress.IPv6Address(rng.randbytes(16)), 3
    bits = rng.choice([address.max_prefixlen, rng.randrange(address.max_prefixlen + 1)])
    text = str(address) + ("" if bits == address.max_prefixlen else f"/{bits}")
    binary = bytes([family, bits, 0, len(address.packed)]) + address.packed
    return (address, bits), text.encode(), binary


def other(text, binary):
    return lambda rng: (NULL, text, binary)


TYPES = {
    "text": (25, a_text), "varchar": (1043, a_text), "name": (19, a_name), "bpchar": (1042, a_padded),
    "json": (114, a_json), "jsonb": (3802, a_jsonb), "bytea": (17, a_bytea), "uuid": (2950, a_uuid),
    "date": (1082, a_date), "timestamp": (1114, a_timestamp), "timestamptz": (1184, a_timestamptz),
    "int2": (21, an_integer(16)), "int4": (23, an_integer(32)), "int8": (20, an_integer(64)),
    "float4": (700, a_float("f")), "float8": (701, a_float("d")), "numeric": (1700, a_numeric),
    "inet": (869, an_address), "cidr": (650, an_address),
    "bool": (16, other(b"t", b"\1")), "text[]": (1009, other(b"{a,b}", b"\0" * 20)), "interval": (1186, other(b"1 day", b"\0" * 16)),
    "enum": (16_500, other(b"happy", b"happy")), "range": (3904, other(b"[1,2)", b"\2")), "composite": (16_600, other(b"(1,a)", b"\0")),
    "money": (790, other(b"$1.00", b"\0" * 8)), "xml": (142, other(b"<a/>", b"<a/>")),
}
TEXTS = {"text", "varchar", "name", "bpchar"}


# What must come out: a value, or NULL.

def redacted(kind, binary):
    if kind in TEXTS:
        return REDACTED
    if kind in ("json", "jsonb"):
        return (b"\1" if binary and kind == "jsonb" else b"") + b'"' + REDACTED + b'"'
    if kind == "bytea":
        return REDACTED if binary else b"\\x" + REDACTED.hex().encode()
    return NULL


def decodes(value):
    try:
        value.decode()
        return True
    except UnicodeDecodeError:
        return False


def partial(kind, first, last, value):
    text = value.decode()
    bare = text.rstrip(" ") if kind == "bpchar" else text
    half = len(bare) // 2
    if first + last > half:
        first, last = half * first // (first + last), half - half * first // (first + last)
    shown = bare[:first] + "*" * (len(bare) - first - last) + (bare[-last:] if last else "")
    return (shown + text[len(bare):]).encode()


def digested(kind, meaning, binary):
    told = digest(meaning.rstrip(b" ") if kind == "bpchar" and meaning is not NULL else meaning)
    if kind in TEXTS:
        return told.hex().encode()
    if kind in ("json", "jsonb"):
        return (b"\1" if binary and kind == "jsonb" else b"") + b'"' + told.hex().encode() + b'"'
    if kind == "bytea":
        return told if binary else b"\\x" + told.hex().encode()
    marked = bytearray(told)
    marked[6], marked[8] = marked[6] & 0x0F | 0x80, marked[8] & 0x3F | 0x80
    return bytes(marked) if binary else str(uuid.UUID(bytes=bytes(marked))).encode()


def tokenized(kind, meaning, binary):
    told = token(meaning.rstrip(b" ") if kind == "bpchar" and meaning is not NULL else meaning)
    if kind == "name" and len(told) > 63:
        return REDACTED
    return b"\\x" + told.hex().encode() if kind == "bytea" and not binary else told


def coarse(kind, options, meaning, binary):
    to, bucket, ipv4, ipv6 = options
    if kind in ("date", "timestamp", "timestamptz"):
        if meaning is NULL:
            return NULL
        day = datetime.date.fromordinal(meaning).replace(day=1)
        day = day if to == "month" else day.replace(month=1)
        if binary:
            since = day.toordinal() - EPOCH
            return struct.pack(">i", since) if kind == "date" else struct.pack(">q", since * 86_400_000_000)
        return (day.isoformat() + {"date": "", "timestamp": " 00:00:00", "timestamptz": " 00:00:00+00"}[kind]).encode()
    if kind in ("inet", "cidr"):
        address, bits = meaning
        bits = min(bits, ipv4 if address.version == 4 else ipv6)
        network = ipaddress.ip_network((address, bits), strict=False)
        if binary:
            packed = network.network_address.packed
            return bytes([2 if len(packed) == 4 else 3, bits, 0, len(packed)]) + packed
        return str(network).encode()
    if kind not in ("int2", "int4", "int8", "float4", "float8", "numeric") or bucket is None or meaning is NULL:
        return NULL
    if kind.startswith("float"):
        if meaning != meaning or abs(meaning) >= 1e15:
            return NULL
        below = int(meaning // 1) // bucket * bucket
        return struct.pack(">f" if kind == "float4" else ">d", below) if binary else str(below).encode()
    if kind == "numeric":
        with decimal.localcontext(prec=200):
            below = int(meaning.to_integral_value(decimal.ROUND_FLOOR)) // bucket * bucket
            if not binary:
                return str(below).encode()
            return numeric_binary(decimal.Decimal(below))
    size = int(kind[3:])
    below = meaning // bucket * bucket
    if not -(2 ** (8 * size - 1)) <= below:
        return NULL
    return below.to_bytes(size, "big", signed=True) if binary else str(below).encode()


def expected(kind, mask, nulls, value, binary):
    """`value` is (meaning, text, binary), or NULL."""
    name, *options = mask
    hashes = kind in TEXTS | {"json", "jsonb", "bytea", "uuid"}
    tokens = kind in TEXTS | {"bytea"}
    if name == "nullify" or name == "partial" and kind not in TEXTS or name == "hash" and not hashes or name == "token" and not tokens:
        return NULL
    if value is NULL:
        if nulls == "keep" or name == "generalize":
            return NULL
        if name == "hash":
            return digested(kind, NULL, binary)
        return tokenized(kind, NULL, binary) if name == "token" else redacted(kind, binary)
    meaning, wire = value[0], value[2 if binary else 1]
    if name == "redact":
        return redacted(kind, binary)
    if len(wire) > SEEN:
        return NULL if name == "generalize" else redacted(kind, binary)
    if name == "generalize":
        return coarse(kind, options, meaning, binary)
    if kind in TEXTS | {"json", "jsonb"} and not decodes(meaning):
        return redacted(kind, binary)
    if name == "partial":
        return partial(kind, *options, meaning)
    return digested(kind, meaning, binary) if name == "hash" else tokenized(kind, meaning, binary)


# COPY, as PostgreSQL writes it (src/backend/commands/copyto.c).

LETTERS = {8: b"b", 12: b"f", 10: b"n", 13: b"r", 9: b"t", 11: b"v"}


def copy_cell(layout, cell):
    if layout["format"] == "binary":
        return struct.pack(">i", -1) if cell is NULL else struct.pack(">i", len(cell)) + cell
    if cell is NULL:
        return layout["null"].encode()
    delimiter, quote, escape = (layout[name].encode() for name in ("delimiter", "quote", "escape"))
    if layout["format"] == "csv":
        special = cell == layout["null"].encode() or cell == b"\\." or any(mark in cell for mark in (delimiter, quote, b"\n", b"\r"))
        if not (special or layout["force"]):
            return cell
        told = b"".join((escape if bytes([byte]) in (quote, escape) else b"") + bytes([byte]) for byte in cell)
        return quote + told + quote
    return b"".join(
        b"\\" + LETTERS[byte] if byte in LETTERS else b"\\" + bytes([byte]) if bytes([byte]) in (b"\\", delimiter) else bytes([byte])
        for byte in cell
    )


def copy_stream(layout, rows):
    if layout["format"] == "binary":
        head = b"PGCOPY\n\xff\r\n\0" + bytes(8)
        lines = [struct.pack(">h", len(row)) + b"".join(copy_cell(layout, cell) for cell in row) for row in rows]
        return head + b"".join(lines) + struct.pack(">h", -1)
    return b"".join(layout["delimiter"].encode().join(copy_cell(layout, cell) for cell in row) + b"\n" for row in rows)


LAYOUTS = [
    {"format": "text", "delimiter": "\t", "null": "\\N", "quote": '"', "escape": '"', "force": False, "header": False},
    {"format": "text", "delimiter": "|", "null": "\\X", "quote": '"', "escape": '"', "force": False, "header": False},
    {"format": "csv", "delimiter": ",", "null": "", "quote": '"', "escape": '"', "force": False, "header": False},
    {"format": "csv", "delimiter": ";", "null": "a", "quote": "'", "escape": "\\", "force": True, "header": False},
    {"format": "csv", "delimiter": "\\", "null": "none", "quote": '"', "escape": "x", "force": False, "header": False},
    {"format": "binary", "delimiter": ",", "null": "", "quote": '"', "escape": '"', "force": False, "header": False},
]


def a_mask(rng):
    return rng.choice([
        ("redact",), ("nullify",), ("hash",), ("hash",), ("token",),
        ("partial", rng.randrange(6), rng.randrange(1, 6)),
        ("generalize", rng.choice(["month", "year"]), rng.choice([None, 2, 10, 1000, 10**12]), rng.randrange(32), rng.randrange(128)),
        ("generalize", rng.choice(["month", "year"]), rng.choice([10, 7]), 24, 48),
    ])


def cells_of(rng, kinds):
    return [NULL if rng.random() < 0.2 else TYPES[kind][1](rng) for kind in kinds]


def case(rng):
    """One line for the program, the line it must answer with, and how many rows that was."""
    kinds = [rng.choice(list(TYPES)) for _ in range(rng.randrange(1, 4))]
    masks = [a_mask(rng) if rng.random() < 0.8 else None for _ in kinds]
    nulls = ["hide" if rng.random() < 0.2 else "keep" for _ in kinds]

    def told(cells, binary):
        wire = [NULL if cell is NULL else cell[2 if binary else 1] for cell in cells]
        out = [
            raw if mask is None else expected(kind, mask, hidden, cell, binary)
            for kind, mask, hidden, cell, raw in zip(kinds, masks, nulls, cells, wire)
        ]
        return wire, out

    columns = [
        [TYPES[kind][0]] if mask is None else [TYPES[kind][0], ":".join("-" if part is None else str(part) for part in mask), hidden]
        for kind, mask, hidden in zip(kinds, masks, nulls)
    ]
    hexed = lambda row: [NULL if cell is NULL else cell.hex() for cell in row]
    if rng.random() < 0.7:
        binary = rng.random() < 0.5
        wire, out = told(cells_of(rng, kinds), binary)
        return {"format": "b" if binary else "t", "columns": columns, "cells": hexed(wire)}, hexed(out), 1
    layout = rng.choice(LAYOUTS)
    binary = layout["format"] == "binary"
    rows = [told(cells_of(rng, kinds), binary) for _ in range(rng.randrange(1, 4))]
    data, out = (copy_stream(layout, [row[side] for row in rows]) for side in (0, 1))
    line = {"copy": layout, "format": "b" if binary else "t", "columns": columns, "data": data.hex(), "cut": rng.choice([1, 3, 64, 10**6])}
    return line, out.hex(), len(rows)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("program")
    arguments.add_argument("--rows", type=int, default=20_000)
    arguments.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    given = arguments.parse_args()
    print(f"seed {given.seed}", flush=True)
    rng = random.Random(given.seed)
    done = 0
    while done < given.rows:
        batch = []
        while len(batch) < 5_000 and done < given.rows:
            batch.append(case(rng))
            done += batch[-1][2]
        run = subprocess.Popen([given.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        feed = threading.Thread(target=lambda: (run.stdin.write("".join(json.dumps(line) + "\n" for line, _, _ in batch)), run.stdin.close()))
        feed.start()
        for line, wanted, _ in batch:
            answer = run.stdout.readline()
            found = json.loads(answer) if answer else "nothing: it ended"
            if found != wanted:
                sys.exit(f"differs: {json.dumps(line)}\nfound:    {found}\nexpected: {wanted}")
        feed.join()
        if run.wait() != 0:
            sys.exit(f"{given.program} ended with {run.returncode}")
    print(f"{done} rows masked alike")


if __name__ == "__main__":
    main()
