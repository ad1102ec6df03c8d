"""A throw-away certificate authority and the server certificates it signs, made by the `openssl` command."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from .run import HarnessError

LOOPBACK_NAMES = ("DNS:localhost", "IP:127.0.0.1")


def _openssl(*arguments):
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise HarnessError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """A CA in `folder`; `issue` signs as many leaves as a test needs."""

    def __init__(self, folder, name="exeat e2e throw-away CA"):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cert = self.folder / "ca.crt"
        self._key = self.folder / "ca.key"
        _openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", self._key, "-out", self.cert,
        )

    def issue(self, name, names=LOOPBACK_NAMES, days=1, usage="serverAuth"):
        """A leaf with the name as its common name, for the given subject alternative names."""
        pair = Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        request = self.folder / f"{name}.csr"
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(
            "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
            f"extendedKeyUsage={usage}\nsubjectAltName={','.join(names)}\n"
        )
        _openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-keyout", pair.key, "-out", request,
        )
        pair.key.chmod(0o600)
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self._key, "-CAcreateserial",
            "-days", days, "-extfile", extensions, "-out", pair.cert,
        )
        return pair
