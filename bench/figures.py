"""Reading figures off processes, and tables made of them."""

import os
import re
import statistics
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
REFERENCE = "pgbouncer"


def cpu_seconds(pid):
    """User and system time of the whole process; 0 where there is none."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def memory_kib(pid, field):
    """VmRSS now, or VmHWM: at most since `forget_peak`."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1])


def forget_peak(pid):
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def median(samples, field):
    values = [sample[field] for sample in samples]
    return None if None in values else statistics.median(values)


def ratio(value, base):
    return "–" if not value or not base else f"{value / base:.2f}"


def shown(value, digits=1):
    return "–" if value is None else f"{value:.{digits}f}"


def table(header, rows):
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(flush=True)


def machine():
    """Processor, cores and kernel, as far as the machine says."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*:\s*(.+)", info)
    return f"{model[1].strip() if model else 'processor unknown'}, {os.cpu_count()} cores, Linux {os.uname().release}"


def load():
    return "{:.1f}".format(os.getloadavg()[0])
