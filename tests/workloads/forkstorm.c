/* N short processes, B chains of them at a time, each chain D deep: every process forks the next, waits for it and ends. */
#include "workload.h"
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static const char *dir;
static int log_fd = -1;

/* One line per process, in one write to a file opened O_APPEND: lines never mix. */
static void tell(int depth)
{
    char line[128];
    int bytes = snprintf(line, sizeof(line), "{\"pid\": %d, \"ppid\": %d, \"depth\": %d}\n", getpid(), getppid(), depth);
    if (log_fd >= 0 && write(log_fd, line, (size_t)bytes) != bytes)
        _exit(3);
}

/* Opens DIR/none/depth<k>, which is not there: an event by which a tracer's idea of the ancestors can be checked. */
static void touch(int depth)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/none/depth%d", dir, depth);
    if (syscall(SYS_openat, AT_FDCWD, path, O_RDONLY) >= 0)
        _exit(3);
}

static pid_t chain(int depth, int deepest)
{
    int status = 0;
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    tell(depth);
    if (dir)
        touch(depth);
    if (depth < deepest && (waitpid(chain(depth + 1, deepest), &status, 0) < 0 || status))
        _exit(3);
    _exit(0);
}

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {{"count", 1, 0, 'n'}, {"batch", 1, 0, 'b'}, {"depth", 1, 0, 'd'},
                                            {"touch", 1, 0, 't'}, {"log", 1, 0, 'l'},   {0}};
    long count = 0, batch = 1, depth = 1, started = 0, running = 0, chains = 0;
    for (int c; (c = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        switch (c) {
        case 'n': count = atol(optarg); break;
        case 'b': batch = atol(optarg); break;
        case 'd': depth = atol(optarg); break;
        case 't': dir = optarg; break;
        case 'l': log_fd = open(optarg, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644); break;
        default: return 2;
        }
    }
    if (count < 1 || batch < 1 || depth < 1)
        refuse("usage: forkstorm --count N [--batch B] [--depth D] [--touch DIR] [--log FILE]");

    unsigned long long start = clock_ns(CLOCK_MONOTONIC);
    while (started < count || running) {
        if (started < count && running < batch) {
            long deepest = count - started < depth ? count - started : depth; /* the last chain is as long as is left */
            if (chain(1, (int)deepest) < 0)
                refuse("fork: %s", strerror(errno));
            started += deepest;
            running++;
            chains++;
            continue;
        }
        int status = 0;
        if (wait(&status) < 0 || status)
            refuse("a process failed: status %d", status);
        running--;
    }
    printf("{\"workload\": \"forkstorm\", \"pid\": %d, \"processes\": %ld, \"chains\": %ld, \"elapsed_ns\": %llu}\n", getpid(), count,
           chains, clock_ns(CLOCK_MONOTONIC) - start);
    return 0;
}
