"""One PostgreSQL, one identity provider and three gateways for the whole session, each started when first asked for.

`gateway`: TLS on both sides, tokens from the identity provider. `plain`: a loopback listener without TLS and tokens
by our own key, so that a test can shape a token or read the bytes on the wire. `through`: the pass-through policy.
"""

import os
import sys
from datetime import datetime, timezone
from pathlib import Path

import psycopg
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.certificates import Authority  # noqa: E402
from lib.gateway import PASS_THROUGH, Gateway, Shop, Trust, binary  # noqa: E402
from lib.oidc import Provider  # noqa: E402
from lib.postgres import SUPERUSER, Server  # noqa: E402
from lib.run import Run, end_on_signals  # noqa: E402
from spine import CLIENTS, POLICY  # noqa: E402

# Tests make mistakes on purpose; the limit on failed logins has a test of its own.
LIMITS = {"failed_logins": "1000/min"}
LOG_LINES_MAX = 25
RUNS = []


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("late") is not None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure comes with what the gateways and servers said during the test."""
    report = yield
    if report.failed:
        for log in (path for run in RUNS for path in sorted(run.folder.glob("*.log"))):
            said = [line for line in log.read_text(errors="replace").splitlines() if recent(line, call.start)]
            if said:
                report.sections.append((f"{log.name} during the test", "\n".join(said[-LOG_LINES_MAX:])))
    return report


def recent(line, start):
    """Lines that begin with a time at or after `start`; gateways and PostgreSQL write UTC."""
    try:
        when = datetime.fromisoformat(line[:19].replace(" ", "T")).replace(tzinfo=timezone.utc)
    except ValueError:
        return False
    return when.timestamp() >= int(start)


@pytest.fixture(scope="session")
def run():
    end_on_signals()
    with Run() as run:
        RUNS.append(run)
        yield run


@pytest.fixture(scope="session")
def program():
    """The gateway's binary, built once."""
    path = binary()
    os.environ["EXEAT_BIN"] = str(path)
    return path


@pytest.fixture(scope="session")
def authority(run):
    return Authority(run.path("ca"))


@pytest.fixture(scope="session")
def server(run, authority):
    major = int(os.environ.get("EXEAT_E2E_PG", "15"))
    # The second address is not in the certificate.
    settings = {"listen_addresses": "127.0.0.1,127.0.0.2"}
    return Server(run, major, pair=authority.issue("postgres"), ca=authority.cert, settings=settings)


@pytest.fixture(scope="session")
def shop(server):
    return Shop(server)


@pytest.fixture(scope="session")
def provider(run, authority):
    return Provider(run, authority, CLIENTS)


@pytest.fixture(scope="session")
def fresh_gateway(run, program, server, shop):
    """Makes a gateway over the shop that only its own test uses; not started yet."""

    def make(name, policy=POLICY, database="shop"):
        gateway = Gateway(run, name).policy(policy)
        gateway.config["listen"]["postgres"]["limits"] = dict(LIMITS)
        # Tests share the shop and make relations there as they go; what becomes of those has tests of its own.
        return gateway.target(server, database, shop.logins(), unclassified="allow")

    return make


@pytest.fixture(scope="session")
def gateway(fresh_gateway, authority, provider):
    gateway = fresh_gateway("gateway").listen_tls(authority).trust(provider.entry()).start(level="debug")
    yield gateway
    gateway.stop()


@pytest.fixture(scope="session")
def trust(run):
    return Trust(run)


@pytest.fixture(scope="session")
def plain(fresh_gateway, trust):
    gateway = fresh_gateway("plain").trust(trust.entry()).start(level="debug")
    yield gateway
    gateway.stop()


@pytest.fixture(scope="session")
def through(run, program, server, shop, trust):
    gateway = Gateway(run, "through").policy(PASS_THROUGH).trust(trust.entry())
    login = [{"user": SUPERUSER, "password": server.password}]
    yield gateway.target(server, "shop", login, allow_privileged_login=True).start(level="debug")
    gateway.stop()


@pytest.fixture(scope="session")
def agent(gateway, provider):
    """The DSN of an agent on the TLS gateway: personal data is masked."""
    return gateway.dsn(provider.token("agent-7"))


@pytest.fixture(scope="session")
def officer(gateway, provider):
    """The DSN of the data-protection officer: nothing is masked."""
    return gateway.dsn(provider.token("dana"))


@pytest.fixture
def connect():
    """psycopg connections in autocommit, closed at the end of the test."""
    opened = []

    def make(dsn, **options):
        opened.append(psycopg.connect(dsn.text(), **{"autocommit": True, **options}))
        return opened[-1]

    yield make
    for connection in opened:
        connection.close()


@pytest.fixture(scope="session")
def truth(shop):
    """The shop as it is, read past the gateway: {table: {id: row}}."""
    with psycopg.connect(shop.admin.text(), row_factory=psycopg.rows.dict_row) as connection:
        return {
            table: {row["id"]: row for row in connection.execute(f"SELECT * FROM {table}")}
            for table in ("customers", "orders", "payments")
        }


@pytest.fixture
def folder(tmp_path):
    """An empty place for temporary files. pytest's are closed, and the server's unprivileged user must pass through."""
    for step in (tmp_path, *tmp_path.parents):
        if step == tmp_path or step.name.startswith("pytest-"):
            step.chmod(0o711)
    place = tmp_path / "tmp"
    place.mkdir(mode=0o711)
    return place
