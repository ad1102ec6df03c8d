"""Throw-away ES256 keys and the tokens signed with them, for an issuer the gateway trusts by a `jwks_file`.

The elliptic-curve work is done by the `openssl` command: the harness needs nothing but Python's standard library.
Never used outside tests: a real deployment gets its tokens from its identity provider.
"""

import base64
import hashlib
import json
import os
import re
import subprocess
import time
import uuid
from pathlib import Path

from .run import HarnessError

ISSUER = "https://issuer.exeat.test"
AUDIENCE = "exeat"
TTL_DEFAULT = "12h"
P256_BYTES = 32
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text):
    """`12h` -> 43200; negative values make a token that is already expired."""
    match = re.fullmatch(r"(-?\d+)([smhd])", text)
    if match is None:
        raise HarnessError(f'duration "{text}" is not a number with s, m, h or d, as in 12h')
    return int(match[1]) * _UNITS[match[2]]


def _openssl(*arguments, data=None):
    done = subprocess.run(["openssl", *map(str, arguments)], input=data, capture_output=True, check=False)
    if done.returncode != 0:
        raise HarnessError(f"openssl {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def new_key(path):
    """A P-256 private key in `path`, readable by its owner only."""
    pem = _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(pem)
    return Path(path)


def public_jwk(key):
    """The key's public half; its id is the RFC 7638 thumbprint."""
    # The last 65 bytes of a P-256 SubjectPublicKeyInfo are the uncompressed point: 04, x, y.
    point = _openssl("pkey", "-in", key, "-pubout", "-outform", "DER")[-(1 + 2 * P256_BYTES):]
    jwk = {"crv": "P-256", "kty": "EC", "x": _b64(point[1:1 + P256_BYTES]), "y": _b64(point[1 + P256_BYTES:])}
    thumbprint = hashlib.sha256(json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode()).digest()
    return {**jwk, "kid": _b64(thumbprint), "alg": "ES256", "use": "sig"}


def write_jwks(path, *keys):
    """Replaces the file whole, as a rotation would: a reader never sees half of it."""
    temporary = Path(f"{path}.new")
    temporary.write_text(json.dumps({"keys": [public_jwk(key) for key in keys]}, indent=2) + "\n")
    temporary.replace(path)
    return Path(path)


def _raw_signature(der):
    """DER SEQUENCE of two INTEGERs -> r and s, 32 bytes each, as JWS wants them."""
    numbers, at = [], 2
    for _ in range(2):
        length = der[at + 1]
        numbers.append(int.from_bytes(der[at + 2:at + 2 + length], "big").to_bytes(P256_BYTES, "big"))
        at += 2 + length
    return b"".join(numbers)


def sign(key, claims, header=None):
    """A compact JWS. `header` overrides members, for tokens that must not be accepted."""
    head = {"alg": "ES256", "typ": "at+jwt", "kid": public_jwk(key)["kid"], **(header or {})}
    signed = f"{_b64(json.dumps(head).encode())}.{_b64(json.dumps(claims).encode())}"
    return f"{signed}.{_b64(_raw_signature(_openssl('dgst', '-sha256', '-sign', key, data=signed.encode())))}"


def mint(key, sub, groups=(), act=None, ttl=TTL_DEFAULT, issuer=ISSUER, audience=AUDIENCE, claims=None):
    """A token for `sub`, or for the agent `act` acting for `sub` (RFC 8693)."""
    now = int(time.time())
    lifetime = seconds(ttl)
    body = {
        "iss": issuer, "sub": sub, "aud": audience, "iat": min(now, now + lifetime - 1), "exp": now + lifetime,
        "jti": str(uuid.uuid4()), "groups": list(groups),
    }
    if act is not None:
        body["act"] = {"sub": act}
    return sign(key, {**body, **(claims or {})})
