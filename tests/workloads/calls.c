/* One system call over and over, for a count or for a time: what a tracer adds to it is the difference of two runs. */
#include "workload.h"
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

enum { CLOCK_EVERY = 1024 };
static const char ABSENT[] = "/proc/self/none"; /* nothing can be made there */

static long call_getppid(void) { return syscall(SYS_getppid); }
static long call_chmod(void) { return syscall(SYS_chmod, ABSENT, 0644); }
static long call_kill(void) { return syscall(SYS_kill, getpid(), 0); }
static long call_ptrace(void) { return syscall(SYS_ptrace, PTRACE_CONT, 0, 0, 0); }
static long call_mount(void) { return syscall(SYS_mount, "none", ABSENT, "tmpfs", 0, NULL); }
static long call_umount(void) { return syscall(SYS_umount2, ABSENT, 0); }

/* Each gives the same at every turn: nothing at all, or an error that changes nothing. */
static const struct {
    const char *name;
    long (*call)(void);
    int expected; /* errno; 0 where it succeeds */
} CALLS[] = {
    {"getppid", call_getppid, 0},    {"chmod", call_chmod, ENOENT}, {"kill", call_kill, 0},
    {"ptrace", call_ptrace, ESRCH}, {"mount", call_mount, ENOENT}, {"umount", call_umount, ENOENT},
};
enum { KINDS = sizeof(CALLS) / sizeof(*CALLS) };

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {{"call", 1, 0, 'k'}, {"count", 1, 0, 'n'}, {"seconds", 1, 0, 's'}, {"cpu", 1, 0, 'c'}, {0}};
    unsigned long long count = 0, done = 0;
    double seconds = 0;
    int kind = KINDS;
    for (int c; (c = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        switch (c) {
        case 'k':
            for (kind = 0; kind < KINDS && strcmp(optarg, CALLS[kind].name);)
                kind++;
            break;
        case 'n': count = strtoull(optarg, NULL, 10); break;
        case 's': seconds = atof(optarg); break;
        case 'c': stand_on(atoi(optarg)); break;
        default: return 2;
        }
    }
    if (kind == KINDS || (count > 0) == (seconds > 0))
        refuse("usage: calls --call getppid|chmod|kill|ptrace|mount|umount (--count N | --seconds S) [--cpu C]");

    long (*call)(void) = CALLS[kind].call;
    unsigned long long limit = count ? count : ~0ULL, start = clock_ns(CLOCK_MONOTONIC);
    unsigned long long end = seconds > 0 ? start + (unsigned long long)(seconds * NS_PER_S) : ~0ULL;
    for (; done < limit && (done % CLOCK_EVERY || clock_ns(CLOCK_MONOTONIC) < end); done++) {
        int error = call() < 0 ? errno : 0;
        if (error != CALLS[kind].expected)
            refuse("%s gave %s", CALLS[kind].name, strerror(error));
    }
    unsigned long long elapsed = clock_ns(CLOCK_MONOTONIC) - start;
    printf("{\"workload\": \"calls\", \"pid\": %d, \"call\": \"%s\", \"calls\": %llu, \"elapsed_ns\": %llu, \"ns_per_call\": %.2f}\n", getpid(),
           CALLS[kind].name, done, elapsed, done ? (double)elapsed / (double)done : 0.0);
    return 0;
}
