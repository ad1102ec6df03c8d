"""The real identity provider of `e2e/oidc`, as a child of the run, and tokens got from it as a workload would."""

import base64
import json
import secrets
import shutil
import ssl
import urllib.parse
import urllib.request
from pathlib import Path

from . import tokens
from .run import HarnessError, free_port, wait_until

FOLDER = Path(__file__).resolve().parent.parent / "oidc"


class Provider:
    """`clients`: {id: {"groups": [...], "seconds": n, "claims": {...}}}; each gets a random secret."""

    def __init__(self, run, authority, clients):
        if not (FOLDER / "node_modules" / "oidc-provider").exists():
            raise HarnessError("the identity provider is not installed; run `make e2e-tools`")
        node = shutil.which("node")
        if node is None:
            raise HarnessError("node is not on PATH; the identity provider needs Node.js 20 or newer")
        self.port = free_port()
        self.issuer = f"https://localhost:{self.port}"
        self.ca = authority.cert
        self._context = ssl.create_default_context(cafile=str(authority.cert))
        self._secrets = {name: secrets.token_urlsafe(16) for name in clients}
        pair = authority.issue("identity-provider")
        config = {
            "port": self.port, "cert": str(pair.cert), "key": str(pair.key), "audience": tokens.AUDIENCE,
            "clients": [{"id": name, "secret": self._secrets[name], **rest} for name, rest in clients.items()],
        }
        self.log = run.path("oidc.log")
        self.process = run.spawn(
            "identity provider", [node, FOLDER / "server.mjs", run.secret_file("oidc.json", json.dumps(config))], self.log,
        )
        wait_until("the identity provider answers", self._discovered, alive=self.process)

    def _discovered(self):
        return self._request("/.well-known/openid-configuration")["issuer"] == self.issuer

    def _request(self, path, form=None, headers=None):
        data = urllib.parse.urlencode(form).encode() if form is not None else None
        request = urllib.request.Request(f"{self.issuer}{path}", data=data, headers=headers or {})
        with urllib.request.urlopen(request, timeout=10, context=self._context) as answer:
            return json.loads(answer.read())

    def entry(self, **options):
        """The gateway's `identity` entry for this provider."""
        return {"issuer": self.issuer, "audience": tokens.AUDIENCE, "groups": "groups", "ca": str(self.ca), **options}

    def token(self, client):
        """A JWT access token by the client credentials grant."""
        basic = base64.b64encode(f"{client}:{self._secrets[client]}".encode()).decode()
        answer = self._request("/token", {"grant_type": "client_credentials"}, {"authorization": f"Basic {basic}"})
        return answer["access_token"]

    def rotate(self, keep):
        """A new signing key; the old one stays published (`keep`) or is withdrawn."""
        return self._request(f"/harness/rotate?keep={int(keep)}", {})

    def outage(self, on):
        self._request(f"/harness/outage?on={int(on)}", {})

    def fetches(self):
        """How often the key set was read."""
        return self._request("/harness/fetches")["fetches"]
