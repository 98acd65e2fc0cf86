/* Two processes hand one byte to and fro over pipes for N rounds: two writes, two reads and two switches a round. */
#include "workload.h"
#include <sys/wait.h>

static void hand_over(int to, int from, long rounds, int begins)
{
    char byte = 0;
    for (long k = 0; k < rounds; k++) {
        if ((begins && write(to, &byte, 1) != 1) || read(from, &byte, 1) != 1 || (!begins && write(to, &byte, 1) != 1))
            _exit(3);
    }
}

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {{"count", 1, 0, 'n'}, {"cpu", 1, 0, 'c'}, {0}};
    long rounds = 0;
    int there[2], back[2], status = 0;
    for (int c; (c = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        switch (c) {
        case 'n': rounds = atol(optarg); break;
        case 'c': stand_on(atoi(optarg)); break; /* the child inherits it */
        default: return 2;
        }
    }
    if (rounds < 1 || pipe(there) || pipe(back))
        refuse("usage: pingpong --count ROUNDS [--cpu C]");

    unsigned long long start = clock_ns(CLOCK_MONOTONIC);
    pid_t child = fork();
    if (child == 0) {
        hand_over(back[1], there[0], rounds, 0);
        _exit(0);
    }
    if (child < 0)
        refuse("fork: %s", strerror(errno));
    hand_over(there[1], back[0], rounds, 1);
    if (waitpid(child, &status, 0) != child || status)
        refuse("the other side failed: status %d", status);
    unsigned long long elapsed = clock_ns(CLOCK_MONOTONIC) - start;
    printf("{\"workload\": \"pingpong\", \"pid\": %d, \"child\": %d, \"rounds\": %ld", getpid(), child, rounds);
    printf(", \"elapsed_ns\": %llu, \"ns_per_round\": %.1f}\n", elapsed, (double)elapsed / (double)rounds);
    return 0;
}
