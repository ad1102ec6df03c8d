"""AES-256-SIV (RFC 5297) from the standards' own words, slow and plain: what tokens are checked against."""


def _times(a):
    return (a << 1) ^ (0x11B if a & 0x80 else 0)


def _product(a, b):
    total = 0
    while b:
        if b & 1:
            total ^= a
        a, b = _times(a), b >> 1
    return total


def _sbox():
    # The inverse in GF(2^8), then the affine map (FIPS 197, 5.1.1).
    inverse = [0] * 256
    for a in range(1, 256):
        if not inverse[a]:
            b = next(b for b in range(1, 256) if _product(a, b) == 1)
            inverse[a], inverse[b] = b, a
    return [
        value ^ 0x63 ^ (spread & 0xFF) ^ (spread >> 8)
        for value in inverse
        for spread in [(value << 1) ^ (value << 2) ^ (value << 3) ^ (value << 4)]
    ]


SBOX = _sbox()
# SubBytes and MixColumns of one byte: what it gives the four bytes of its column.
MIXED = [(_product(s, 2), s, s, _product(s, 3)) for s in SBOX]


class Aes256:
    def __init__(self, key):
        words = [list(key[at:at + 4]) for at in range(0, 32, 4)]
        constant = 1
        for at in range(8, 60):
            word = list(words[-1])
            if at % 8 == 0:
                word = [SBOX[byte] for byte in word[1:] + word[:1]]
                word[0] ^= constant
                constant = _times(constant)
            elif at % 8 == 4:
                word = [SBOX[byte] for byte in word]
            words.append([a ^ b for a, b in zip(words[at - 8], word)])
        self.keys = [sum(words[at:at + 4], []) for at in range(0, 60, 4)]

    def block(self, data):
        state = [a ^ b for a, b in zip(data, self.keys[0])]
        for key in self.keys[1:14]:
            mixed = list(key)
            for column in range(0, 16, 4):
                for row in range(4):
                    parts = MIXED[state[(column + 5 * row) % 16]]
                    for to in range(4):
                        mixed[column + to] ^= parts[(to - row) % 4]
            state = mixed
        shifted = [SBOX[state[(column + 5 * row) % 16]] for column in range(0, 16, 4) for row in range(4)]
        return bytes(a ^ b for a, b in zip(shifted, self.keys[14]))


def _double(block):
    number = int.from_bytes(block, "big") << 1
    return ((number ^ 0x87) & (2**128 - 1) if number >> 128 else number).to_bytes(16, "big")


def _xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


class Siv:
    """Key of 64 bytes: the first half authenticates, the second encrypts."""

    def __init__(self, key):
        self.mac, self.cipher = Aes256(key[:32]), Aes256(key[32:])
        self.k1 = _double(self.mac.block(bytes(16)))
        self.k2 = _double(self.k1)

    def cmac(self, data):
        count = max(1, -(-len(data) // 16))
        last = data[16 * (count - 1):]
        last = _xor(last, self.k1) if len(last) == 16 else _xor((last + b"\x80").ljust(16, b"\0"), self.k2)
        state = bytes(16)
        for at in range(count - 1):
            state = self.mac.block(_xor(state, data[16 * at:16 * at + 16]))
        return self.mac.block(_xor(state, last))

    def seal(self, header, value):
        state = _xor(_double(self.cmac(bytes(16))), self.cmac(header))
        if len(value) >= 16:
            last = value[:-16] + _xor(value[-16:], state)
        else:
            last = _xor(_double(state), (value + b"\x80").ljust(16, b"\0"))
        iv = self.cmac(last)
        counter = int.from_bytes(iv, "big") & ~(1 << 63) & ~(1 << 31)
        stream = b"".join(
            self.cipher.block(((counter + at) % 2**128).to_bytes(16, "big")) for at in range(-(-len(value) // 16))
        )
        return iv + _xor(value, stream)


# RFC 5297, A.1, has a key of 256 bits; NIST's block for AES-256 (FIPS 197, C.3) pins the rest.
assert Aes256(bytes(range(32))).block(bytes.fromhex("00112233445566778899aabbccddeeff")).hex() == (
    "8ea2b7ca516745bfeafc49904b496089"
)
