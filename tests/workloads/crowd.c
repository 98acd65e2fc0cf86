/* N processes that live at once: each makes a known number of getppid calls, and all wait until the standard input ends. Says so when all are there. */
#include "workload.h"
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static long calls = 1;

static _Noreturn void stay(int ready)
{
    char nothing;
    for (long k = 0; k < calls; k++)
        syscall(SYS_getppid);
    close(ready);
    while (read(STDIN_FILENO, &nothing, 1) > 0)
        ;
    _exit(0);
}

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {{"count", 1, 0, 'n'}, {"calls", 1, 0, 'c'}, {0}};
    long count = 0, made = 0;
    int ready[2], why = 0;
    char nothing;
    for (int c; (c = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        switch (c) {
        case 'n': count = atol(optarg); break;
        case 'c': calls = atol(optarg); break;
        default: return 2;
        }
    }
    if (count < 1 || calls < 1 || pipe(ready))
        refuse("usage: crowd --count N [--calls N]; it ends with its standard input");
    unsigned long long start = clock_ns(CLOCK_MONOTONIC);
    for (; made < count; made++) {
        pid_t pid = fork();
        if (pid < 0) {
            why = errno;
            break;
        }
        if (!pid) {
            close(ready[0]);
            stay(ready[1]);
        }
    }
    close(ready[1]);
    if (read(ready[0], &nothing, 1)) /* it ends when all have closed it */
        refuse("ready: %s", strerror(errno));
    printf("{\"workload\": \"crowd\", \"pid\": %d, \"asked\": %ld, \"processes\": %ld, \"errno\": %d, \"calls\": %ld, \"elapsed_ns\": %llu}\n", getpid(),
           count, made, why, calls, clock_ns(CLOCK_MONOTONIC) - start);
    fflush(stdout);
    while (read(STDIN_FILENO, &nothing, 1) > 0)
        ;
    for (long k = 0; k < made; k++) {
        int status = 0;
        if (wait(&status) < 0 || status)
            refuse("a process failed: status %d", status);
    }
    return 0;
}
