/* A disk that fails when it is told to: preloaded into a program, it decides over each call that changes files below
   FAULTS_DIR. The kernel traps these calls (seccomp), so that none goes past it, made by libc or not. What fails, and when, is
   in a file that both sides have mapped (FAULTS_CONTROL); each call is written to FAULTS_LOG while that is asked for.
   Linux, x86-64. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

/* A call with this in its unused last register is our own. */
#define OURS 0x5eedfau

enum kind { WRITE, SYNC, CUT, RESERVE, CREATE, RENAME, MKDIR, KINDS };
static const char *const KIND_NAMES[KINDS] = {"write", "sync", "cut", "reserve", "create", "rename", "mkdir"};

enum part { LOG, BLOBS, KEYS, TREE, FOLDER, PARTS, ELSEWHERE };
static const char *const PART_NAMES[PARTS] = {"log", "blobs", "keys", "tree", "folder"};

/* Written by whoever orders faults, `armed` last. */
struct control {
    uint32_t armed;
    uint32_t part, kind;
    uint32_t nth;     /* the first is 1 */
    uint32_t error;
    uint32_t cut_short; /* a write first takes half of its bytes */
    uint32_t lasting; /* from then on every call of these kinds fails... */
    uint32_t lasting_in; /* ...in these parts */
    uint32_t loses; /* a sync that fails takes what was written since the last one that did not */
    uint32_t recording;
    uint32_t seen, fired, failed; /* ours to write */
};

static struct control *control;
static char folder[1024];
static size_t folder_bytes;
static int log_file = -1;

static long raw(long number, long a, long b, long c, long d, long e) {
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = OURS;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return result;
}

static enum part part_of(const char *path) {
    if (strncmp(path, folder, folder_bytes) != 0) return ELSEWHERE;
    const char *name = path + folder_bytes;
    if (*name == 0) return FOLDER;
    if (*name++ != '/') return ELSEWHERE;
    if (strncmp(name, "log", 3) == 0 && (name[3] == 0 || name[3] == '/')) return LOG;
    if (strncmp(name, "blobs", 5) == 0 && (name[5] == 0 || name[5] == '/')) return BLOBS;
    if (strcmp(name, "session-keys") == 0) return KEYS;
    if (strncmp(name, "tree", 4) == 0 && (name[4] == 0 || name[4] == '/')) return TREE;
    return ELSEWHERE;
}

/* What the call would do, and to which path; KINDS where it is none of ours. */
static enum kind kind_of(long number, const long *a, char *path, size_t room) {
    long file = -1;
    const char *named = NULL;
    enum kind kind = KINDS;
    switch (number) {
    case SYS_write: case SYS_pwrite64: case SYS_writev: case SYS_pwritev: kind = WRITE; file = a[0]; break;
    case SYS_fsync: case SYS_fdatasync: kind = SYNC; file = a[0]; break;
    case SYS_ftruncate: kind = CUT; file = a[0]; break;
    case SYS_fallocate: kind = RESERVE; file = a[0]; break;
    case SYS_open: if (a[1] & O_CREAT) { kind = CREATE; named = (const char *)a[0]; } break;
    case SYS_openat: if (a[2] & O_CREAT) { kind = CREATE; named = (const char *)a[1]; } break;
    case SYS_rename: kind = RENAME; named = (const char *)a[1]; break;
    case SYS_renameat: case SYS_renameat2: kind = RENAME; named = (const char *)a[3]; break;
    case SYS_mkdir: kind = MKDIR; named = (const char *)a[0]; break;
    case SYS_mkdirat: kind = MKDIR; named = (const char *)a[1]; break;
    default: return KINDS;
    }
    if (kind == KINDS) return KINDS;
    if (named != NULL) {
        strncpy(path, named, room - 1);
        path[room - 1] = 0;
        return kind;
    }
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%ld", file);
    long bytes = raw(SYS_readlink, (long)link, (long)path, (long)room - 1, 0, 0);
    if (bytes < 0) return KINDS;
    path[bytes] = 0;
    return kind;
}

static long write_half(long number, const long *a) {
    if (number == SYS_write && a[2] > 1) return raw(number, a[0], a[1], a[2] / 2, 0, 0);
    if (number == SYS_pwrite64 && a[2] > 1) return raw(number, a[0], a[1], a[2] / 2, a[3], 0);
    return -(long)control->error;
}

/* How much of the file of each part was there when it was synced last; what a process finds is on the disk. */
static long synced[PARTS];
static int found[PARTS];

static long size_of(long file) {
    return raw(SYS_lseek, file, 0, SEEK_END, 0, 0);
}

static long decide(long number, const long *a, enum part part, enum kind kind) {
    if ((kind == WRITE || kind == SYNC) && part < TREE && !found[part] && size_of(a[0]) >= 0) {
        synced[part] = size_of(a[0]);
        found[part] = 1;
    }
    uint32_t armed = __atomic_load_n(&control->armed, __ATOMIC_ACQUIRE);
    if (armed == 2 && control->lasting & 1u << kind && control->lasting_in & 1u << part) return -(long)control->error;
    if (armed == 3 && part == control->part && kind == WRITE) {
        /* The rest of the write that was cut short. */
        __atomic_store_n(&control->armed, control->lasting ? 2 : 0, __ATOMIC_RELEASE);
        return -(long)control->error;
    }
    if (armed == 1 && part == control->part && kind == control->kind &&
        __atomic_add_fetch(&control->seen, 1, __ATOMIC_ACQ_REL) == control->nth) {
        __atomic_add_fetch(&control->fired, 1, __ATOMIC_ACQ_REL);
        __atomic_store_n(&control->armed, control->cut_short ? 3 : control->lasting ? 2 : 0, __ATOMIC_RELEASE);
        /* Files are opened to append: where they are read and written from is no matter. */
        if (control->loses && kind == SYNC && size_of(a[0]) > synced[part]) raw(SYS_ftruncate, a[0], synced[part], 0, 0, 0);
        return control->cut_short ? write_half(number, a) : -(long)control->error;
    }
    long result = raw(number, a[0], a[1], a[2], a[3], a[4]);
    if (kind == SYNC && result == 0 && part < TREE && size_of(a[0]) >= 0) synced[part] = size_of(a[0]);
    return result;
}

static void trapped(int signal, siginfo_t *info, void *context) {
    (void)signal;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    long a[5] = {registers[REG_RDI], registers[REG_RSI], registers[REG_RDX], registers[REG_R10], registers[REG_R8]};
    long number = info->si_syscall, result;
    char path[1024];
    enum kind kind = kind_of(number, a, path, sizeof path);
    enum part part = kind == KINDS ? ELSEWHERE : part_of(path);
    if (part == ELSEWHERE) {
        result = raw(number, a[0], a[1], a[2], a[3], a[4]);
    } else {
        result = decide(number, a, part, kind);
        if (result < 0) __atomic_add_fetch(&control->failed, 1, __ATOMIC_ACQ_REL);
        if (control->recording) {
            char line[1200];
            int bytes = snprintf(line, sizeof line, "%s %s %ld %s\n", PART_NAMES[part], KIND_NAMES[kind], result, path + folder_bytes);
            raw(SYS_write, log_file, (long)line, bytes, 0, 0);
        }
    }
    registers[REG_RAX] = result;
}

static void refuse_to_start(const char *why) {
    dprintf(2, "faults: %s: %s\n", why, strerror(errno));
    _exit(70);
}

__attribute__((constructor)) static void begin(void) {
    const char *data = getenv("FAULTS_DIR"), *orders = getenv("FAULTS_CONTROL"), *log = getenv("FAULTS_LOG");
    if (data == NULL || orders == NULL || log == NULL) return;
    snprintf(folder, sizeof folder, "%s", data);
    folder_bytes = strlen(folder);
    int file = open(orders, O_RDWR | O_CLOEXEC);
    if (file < 0) refuse_to_start("FAULTS_CONTROL");
    control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (control == MAP_FAILED) refuse_to_start("mmap");
    log_file = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (log_file < 0) refuse_to_start("FAULTS_LOG");

    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (sigaction(SIGSYS, &action, NULL) != 0) refuse_to_start("sigaction");
    static const uint32_t trap[] = {
        SYS_write, SYS_pwrite64, SYS_writev, SYS_pwritev, SYS_fsync, SYS_fdatasync, SYS_ftruncate, SYS_fallocate, SYS_open,
        SYS_openat, SYS_rename, SYS_renameat, SYS_renameat2, SYS_mkdir, SYS_mkdirat,
    };
    enum { MANY = sizeof trap / sizeof *trap };
    struct sock_filter filter[MANY + 8];
    unsigned at = 0;
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5]));
    filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OURS, MANY + 1, 0);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (unsigned n = 0; n < MANY; n++)
        filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, trap[n], MANY - n, 0);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    struct sock_fprog program = {.len = (unsigned short)at, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) refuse_to_start("no_new_privs");
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) refuse_to_start("seccomp");
}
