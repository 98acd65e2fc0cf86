/* Makes each of some system calls a known number of times, in one thread or in several at once, or as 32-bit programs make them. */
#include "workload.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/syscall.h>

static int rounds, compat;

static const struct {
    const char *name;
    long number, compat; /* the latter of arch/x86/entry/syscalls/syscall_32.tbl */
    int times;
} CALLS[] = {
    /* None of them does anything: their arguments are no files. */
    {"getppid", SYS_getppid, 64, 7},   {"gettid", SYS_gettid, 224, 5},        {"close", SYS_close, 6, 3},
    {"read", SYS_read, 3, 2},          {"sched_yield", SYS_sched_yield, 158, 1}, {"fchdir", SYS_fchdir, 133, 4},
    {"openat2", SYS_openat2, 437, 6},
#ifdef __x86_64__
    {"getuid", SYS_getuid, 24, 2},     {"getuid", SYS_getuid, 199, 3},
    {"socket", SYS_socket, 359, 2},    {"accept4", SYS_accept4, 364, 3},
    {"chmod", SYS_chmod, 15, 2},       {"lseek", SYS_lseek, 19, 1},           {"lseek", SYS_lseek, 140, 1},
#endif
};
enum { KINDS = sizeof(CALLS) / sizeof(*CALLS) };

static void call(int kind)
{
#ifdef __x86_64__
    if (compat) {
        long ret = CALLS[kind].compat;
        __asm__ volatile("int $0x80" : "+a"(ret) : "b"(-1L), "c"(-1L), "d"(-1L), "S"(-1L), "D"(-1L) : "memory", "r8", "r9", "r10", "r11");
        return;
    }
#endif
    syscall(CALLS[kind].number, -1L, -1L, -1L, -1L, -1L);
}

static void *work(void *unused)
{
    for (int round = 0; round < rounds; round++)
        for (int kind = 0; kind < KINDS; kind++)
            for (int time = 0; time < CALLS[kind].times; time++)
                call(kind);
    return unused;
}

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {{"rounds", 1, 0, 'n'}, {"threads", 1, 0, 't'}, {"compat", 0, 0, 'c'}, {0}};
    pthread_t threads[64];
    int count = 0, socketcalls = 0;
    for (int c; (c = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        switch (c) {
        case 'n': rounds = atoi(optarg); break;
        case 't': count = atoi(optarg); break;
        case 'c': compat = 1; break;
        default: return 2;
        }
    }
    if (count < 0 || count > 64)
        refuse("usage: frequent --rounds N [--threads T, 64 at most] [--compat]");
    for (int k = 0; k < count; k++)
        if (pthread_create(&threads[k], NULL, work, NULL))
            refuse("thread %d: %s", k, strerror(errno));
    for (int k = 0; k < count; k++)
        pthread_join(threads[k], NULL);
    if (!count)
        work(NULL);
#ifdef __x86_64__
    for (; compat && socketcalls < 5; socketcalls++) { /* listen, by the call that is all calls on sockets */
        long ret = 102;
        __asm__ volatile("int $0x80" : "+a"(ret) : "b"(4L), "c"(0L) : "memory", "r8", "r9", "r10", "r11");
    }
#endif
    printf("{\"workload\": \"frequent\", \"pid\": %d, \"calls\": {\"listen\": %d", getpid(), socketcalls);
    for (int kind = 0; kind < KINDS; kind++) {
        int times = 0;
        if (kind && !strcmp(CALLS[kind].name, CALLS[kind - 1].name))
            continue;
        for (int other = 0; other < KINDS; other++)
            times += strcmp(CALLS[kind].name, CALLS[other].name) ? 0 : CALLS[other].times;
        printf(", \"%s\": %d", CALLS[kind].name, times * rounds * (count ? count : 1));
    }
    printf("}}\n");
    return 0;
}
