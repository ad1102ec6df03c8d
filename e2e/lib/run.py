"""One run: a temporary folder, the processes started in it, and their certain end.

Every child leads its own process group, is told by the kernel when we die, and is known to a janitor process
that cleans up after a SIGKILL of ours. Waiting is always for a condition with a deadline, never a fixed sleep.
"""

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
STOP_SECONDS_MAX = 20
LOG_TAIL_LINES = 20
_LIBC = ctypes.CDLL(None)
_GIVEN = set()


class HarnessError(Exception):
    """What went wrong in the harness itself, with the next step in the text."""


def say(text):
    """Messages go to stderr: stdout is data."""
    print(text, file=sys.stderr, flush=True)


def wait_until(what, condition, seconds=30, alive=None):
    """Polls `condition` until it is true; `alive` names the process whose end makes waiting pointless."""
    deadline = time.monotonic() + seconds
    last, is_over = None, False
    while not is_over:
        # Looked at once more behind the deadline: all of this may have stood still meanwhile.
        is_over = time.monotonic() >= deadline
        try:
            result = condition()
            if result:
                return result
        except (OSError, subprocess.SubprocessError) as error:
            last = error
        if alive is not None and alive.poll() is not None:
            raise HarnessError(f"{alive.title} ended with status {alive.returncode} before {what}\n{alive.tail()}")
        time.sleep(0.02)
    tail = "\n" + alive.tail() if alive is not None else ""
    raise HarnessError(f"{what}: not within {seconds} s (last: {last}){tail}")


def free_port():
    """A port nobody listens on now, and given once. Another program may take it before we do; the server then says so."""
    while True:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        if port not in _GIVEN:
            _GIVEN.add(port)
            return port


def unprivileged_user():
    """Whom PostgreSQL runs as: it refuses root, so root hands it to nobody."""
    return "nobody" if os.geteuid() == 0 else None


class Child(subprocess.Popen):
    """A process of the run, with the title and the log a failure message needs."""

    def __init__(self, title, argv, log, stop_signal, **options):
        self.title = title
        self.log = log
        self.stop_signal = stop_signal
        super().__init__(argv, **options)

    def tail(self):
        if self.log is None or not self.log.exists():
            return ""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def stop(self):
        """Asks, waits, then insists on the whole group."""
        if self.poll() is None:
            self.send_signal(self.stop_signal)
            try:
                self.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                say(f"{self.title} did not stop within {STOP_SECONDS_MAX} s, killing it")
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return self.wait()


class Run:
    """The folder and the children. Use as a context manager, or call `close`."""

    def __init__(self):
        # Closed to others, but the server's unprivileged user must be able to pass through to its own folder.
        self.folder = Path(tempfile.mkdtemp(prefix="exeat-e2e-"))
        self.folder.chmod(0o711)
        self._children = []
        self._janitor = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("janitor.py")), str(self.folder)],
            stdin=subprocess.PIPE,
            # Ours may be a pipe whose reader waits for its end.
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def path(self, name):
        return self.folder / name

    def secret_file(self, name, text):
        """A file only we can read."""
        path = self.path(name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def spawn(self, title, argv, log, user=None, stop_signal=signal.SIGTERM, env=None, cwd=None):
        """`log` is a path, or None to let the child write to our stderr."""
        output = open(log, "ab") if log is not None else sys.stderr
        account = {}
        if user is not None:
            entry = pwd.getpwnam(user)
            account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        try:
            child = Child(
                title, [str(part) for part in argv], log, stop_signal,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, cwd=cwd or self.folder,
                start_new_session=True, preexec_fn=lambda: _LIBC.prctl(PR_SET_PDEATHSIG, int(stop_signal)), **account,
            )
        finally:
            if log is not None:
                output.close()
        self._children.append(child)
        self._tell(f"group {child.pid}\n")
        return child

    def _tell(self, line):
        self._janitor.stdin.write(line.encode())
        self._janitor.stdin.flush()

    def forget(self, child):
        """After a test stopped a child itself."""
        self._children.remove(child)
        self._tell(f"gone {child.pid}\n")

    def close(self):
        while self._children:
            child = self._children.pop()
            child.stop()
            self._tell(f"gone {child.pid}\n")
        shutil.rmtree(self.folder, ignore_errors=True)
        self._janitor.stdin.close()
        self._janitor.wait()


def end_on_signals():
    """SIGTERM and SIGHUP end the program by the same road as Ctrl-C, so that `with` blocks clean up."""

    def leave(number, _frame):
        # A second signal must not interrupt the cleaning.
        for other in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, leave)
