/* One short process in each of the cgroups BASE/c0, BASE/c1, ..., begun inside it (clone3), each of which opens DIR/none/<number>, which is not there. */
#include "workload.h"
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static pid_t fork_into(int cgroup)
{
    struct clone_args arguments = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (unsigned)cgroup};
    return (pid_t)syscall(SYS_clone3, &arguments, sizeof(arguments));
}

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {{"count", 1, 0, 'n'}, {"opens", 1, 0, 'o'}, {"dir", 1, 0, 'd'}, {"base", 1, 0, 'b'}, {0}};
    const char *dir = NULL, *base = NULL;
    long count = 0, opens = 1;
    char path[512];
    for (int c; (c = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        switch (c) {
        case 'n': count = atol(optarg); break;
        case 'o': opens = atol(optarg); break;
        case 'd': dir = optarg; break;
        case 'b': base = optarg; break;
        default: return 2;
        }
    }
    if (count < 1 || opens < 1 || !dir || !base)
        refuse("usage: cgroups --base DIR --count N --dir DIR [--opens N]");
    unsigned long long start = clock_ns(CLOCK_MONOTONIC);
    for (long n = 0; n < count; n++) {
        int status = 0;
        snprintf(path, sizeof(path), "%s/c%ld", base, n);
        int cgroup = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        pid_t pid = cgroup < 0 ? -1 : fork_into(cgroup);
        if (!pid) {
            snprintf(path, sizeof(path), "%s/none/%ld", dir, n);
            for (long k = 0; k < opens; k++)
                if (syscall(SYS_openat, AT_FDCWD, path, O_RDONLY) >= 0)
                    _exit(1);
            _exit(0);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
            refuse("cgroup %ld: %s", n, strerror(errno));
        close(cgroup);
    }
    printf("{\"workload\": \"cgroups\", \"pid\": %d, \"processes\": %ld, \"opens\": %ld, \"own_opens\": %ld, \"elapsed_ns\": %llu}\n", getpid(), count,
           count * opens, count, clock_ns(CLOCK_MONOTONIC) - start);
    return 0;
}
