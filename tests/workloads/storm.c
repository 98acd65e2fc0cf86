/*
 * A tree of short processes whose shape follows from their numbers. The root forks parents (named p0, p1, ...), a parent forks its share of the children
 * (c0, c1, ...), and each fifth child forks the next in its place. A child opens DIR/none/<number>, which is not there, a known number of times. It ends
 * as its number says: killed, by becoming DIR/leaf (this very program), or by itself; a status is the number modulo a prime.
 */
#include "workload.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { FORKS_EVERY = 5, ENDS = 7, STATUSES = 251 };
enum { KILLED = 0, EXECS_UP_TO = 2 }; /* what a number modulo ENDS says */

static const char *dir;
static long count, each = 100, opens = 1;

static void be_called(char kind, long number)
{
    char name[32]; /* the kernel takes the first 15 bytes */
    snprintf(name, sizeof(name), "%c%ld", kind, number);
    prctl(PR_SET_NAME, name);
}

static int ending(long number) { return number % ENDS == KILLED ? SIGKILL : (int)(number % STATUSES) << 8; }

static _Noreturn void end(long number)
{
    char leaf[256], status[16];
    if (number % ENDS == KILLED)
        kill(getpid(), SIGKILL);
    if (number % ENDS <= EXECS_UP_TO) {
        snprintf(leaf, sizeof(leaf), "%s/leaf", dir);
        snprintf(status, sizeof(status), "%ld", number % STATUSES);
        execl(leaf, "leaf", status, NULL);
        _exit(STATUSES + 1);
    }
    _exit((int)(number % STATUSES));
}

/* It must have ended as its number says; which it was is known by its process id. */
static void expect(pid_t pid, long number)
{
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != ending(number))
        refuse("process %ld: pid %d, %s", number, pid, pid < 0 ? strerror(errno) : "ended otherwise");
}

static pid_t child(long number, long stop)
{
    char path[256];
    pid_t next = 0, pid = fork();
    if (pid)
        return pid;
    be_called('c', number);
    int forks = number % FORKS_EVERY == 0 && number + 1 < stop;
    if (forks)
        next = child(number + 1, stop);
    snprintf(path, sizeof(path), "%s/none/%ld", dir, number);
    for (long k = 0; k < opens; k++)
        if (syscall(SYS_openat, AT_FDCWD, path, O_RDONLY) >= 0)
            _exit(STATUSES + 2);
    if (forks)
        expect(next, number + 1);
    end(number);
}

static pid_t parent(long number)
{
    pid_t pid = fork(), children[each];
    if (pid)
        return pid;
    be_called('p', number);
    long first = number * each, stop = first + each < count ? first + each : count;
    for (long n = first; n < stop; n++)
        children[n - first] = n % FORKS_EVERY == 1 ? 0 : child(n, stop);
    for (long n = first; n < stop; n++)
        if (children[n - first])
            expect(children[n - first], n);
    _exit(0);
}

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {{"count", 1, 0, 'n'}, {"each", 1, 0, 'e'}, {"batch", 1, 0, 'b'},
                                            {"opens", 1, 0, 'o'}, {"dir", 1, 0, 'd'},  {0}};
    long batch = 1, running = 0, started = 0;
    if (argc == 2 && !strcmp(argv[0], "leaf"))
        _exit(atoi(argv[1]));
    for (int c; (c = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        switch (c) {
        case 'n': count = atol(optarg); break;
        case 'e': each = atol(optarg); break;
        case 'b': batch = atol(optarg); break;
        case 'o': opens = atol(optarg); break;
        case 'd': dir = optarg; break;
        default: return 2;
        }
    }
    if (count < 1 || each < 1 || each % FORKS_EVERY || batch < 1 || opens < 0 || !dir)
        refuse("usage: storm --dir DIR --count CHILDREN [--each CHILDREN OF A PARENT, times %d] [--batch PARENTS AT A TIME] [--opens N]", FORKS_EVERY);
    long parents = (count + each - 1) / each, execs = 0, killed = 0;
    for (long n = 0; n < count; n++) {
        killed += n % ENDS == KILLED;
        execs += n % ENDS != KILLED && n % ENDS <= EXECS_UP_TO;
    }
    unsigned long long start = clock_ns(CLOCK_MONOTONIC);
    while (started < parents || running) {
        int status = 0;
        if (started < parents && running < batch) {
            if (parent(started++) < 0)
                refuse("fork: %s", strerror(errno));
            running++;
        } else if (wait(&status) < 0 || status) {
            refuse("a parent failed: status %d", status);
        } else {
            running--;
        }
    }
    printf("{\"workload\": \"storm\", \"pid\": %d, \"parents\": %ld, \"children\": %ld, \"processes\": %ld, \"execs\": %ld, \"killed\": %ld, \"opens\": %ld, "
           "\"elapsed_ns\": %llu}\n",
           getpid(), parents, count, parents + count, execs, killed, count * opens, clock_ns(CLOCK_MONOTONIC) - start);
    return 0;
}
