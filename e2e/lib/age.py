"""Opens what is sealed in the age format (age-encryption.org/v1) for X25519 keys, written from the format's description
and RFC 7748, 8439 and 5869 alone: slow, and fit for tests only."""

import base64
import hashlib
import hmac
import os
import struct

P = 2**255 - 19
CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def x25519(secret, point):
    number = int.from_bytes(secret, "little")
    number = (number & ~(7 | 1 << 255)) | 1 << 254
    x1 = int.from_bytes(point, "little") & (1 << 255) - 1
    x2, z2, x3, z3, swapped = 1, 0, x1, 1, 0
    for position in reversed(range(255)):
        bit = number >> position & 1
        if swapped ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swapped = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, (aa - bb) * (aa + 121665 * (aa - bb)) % P
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def _block(key, counter, nonce):
    start = list(struct.unpack("<4I8II3I", b"expand 32-byte k" + key + struct.pack("<I", counter) + nonce))
    state = start.copy()

    def rotated(value, by):
        return (value << by | value >> 32 - by) & 0xFFFFFFFF

    def step(a, b, c, d):
        state[a] = (state[a] + state[b]) & 0xFFFFFFFF
        state[d] = rotated(state[d] ^ state[a], 16)
        state[c] = (state[c] + state[d]) & 0xFFFFFFFF
        state[b] = rotated(state[b] ^ state[c], 12)
        state[a] = (state[a] + state[b]) & 0xFFFFFFFF
        state[d] = rotated(state[d] ^ state[a], 8)
        state[c] = (state[c] + state[d]) & 0xFFFFFFFF
        state[b] = rotated(state[b] ^ state[c], 7)

    for _ in range(10):
        for places in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)):
            step(*places)
        for places in ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
            step(*places)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(state, start)))


def chacha20_poly1305_open(key, nonce, sealed):
    body, tag = sealed[:-16], sealed[-16:]
    once = _block(key, 0, nonce)
    r = int.from_bytes(once[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    s = int.from_bytes(once[16:32], "little")
    padded = body + bytes(-len(body) % 16) + struct.pack("<QQ", 0, len(body))
    total = 0
    for start in range(0, len(padded), 16):
        total = (total + int.from_bytes(padded[start:start + 16] + b"\x01", "little")) * r % (2**130 - 5)
    if not hmac.compare_digest(((total + s) % 2**128).to_bytes(16, "little"), tag):
        raise ValueError("not sealed with this key")
    stream = b"".join(_block(key, number + 1, nonce) for number in range((len(body) + 63) // 64))
    return bytes(one ^ other for one, other in zip(body, stream))


def derived(salt, secret, purpose):
    root = hmac.digest(salt or bytes(32), secret, hashlib.sha256)
    return hmac.digest(root, purpose + b"\x01", hashlib.sha256)


def _checksum(values):
    state = 1
    for value in [3, 3, 3, 0, 1, 7, 5, *values]:
        top, state = state >> 25, (state & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            state ^= generator if top >> bit & 1 else 0
    return state


class Key:
    """An auditor's key, as `age-keygen` makes it."""

    def __init__(self, secret=None):
        self.secret = secret or os.urandom(32)
        self.point = x25519(self.secret, (9).to_bytes(32, "little"))

    @property
    def public(self):
        number = int.from_bytes(self.point, "big") << 4
        values = [number >> 5 * place & 31 for place in reversed(range(52))]
        check = _checksum([*values, *[0] * 6]) ^ 1
        values += [check >> 5 * place & 31 for place in reversed(range(6))]
        return "age1" + "".join(CHARSET[value] for value in values)

    def open(self, sealed):
        header, payload = sealed.split(b"\n--- ", 1)
        mac, payload = payload.split(b"\n", 1)
        version, *lines = header.decode().split("\n")
        assert version == "age-encryption.org/v1"
        file_key = None
        for stanza, body in zip(lines[::2], lines[1::2], strict=True):
            mark, kind, share = stanza.split(" ")
            assert (mark, kind) == ("->", "X25519")
            share, body = (base64.b64decode(text + "=" * (-len(text) % 4)) for text in (share, body))
            wrap = derived(share + self.point, x25519(self.secret, share), b"age-encryption.org/v1/X25519")
            try:
                file_key = chacha20_poly1305_open(wrap, bytes(12), body)
            except ValueError:
                continue
        if file_key is None:
            raise ValueError("not sealed for this key")
        expected = hmac.digest(derived(b"", file_key, b"header"), header + b"\n---", hashlib.sha256)
        assert base64.b64encode(expected).rstrip(b"=") == mac
        nonce, chunk = payload[:16], payload[16:]
        assert len(chunk) <= 64 * 1024 + 16
        return chacha20_poly1305_open(derived(nonce, file_key, b"payload"), bytes(11) + b"\x01", chunk)
