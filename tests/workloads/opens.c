/* Opens files: a count, or as fast as one core can for a time, and says how many of which call gave what. */
#include "workload.h"
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { OPEN, OPENAT, OPENAT2, CREAT, CALLS };
static const char *const CALL_NAMES[CALLS] = {"open", "openat", "openat2", "creat"};
enum { PATH_BYTES = 256, MIX_MAX = 64, CLOCK_EVERY = 64 };

static int open_by(int call, const char *path)
{
    struct open_how how = {.flags = O_RDONLY};
    switch (call) {
    case OPEN:
        return (int)syscall(SYS_open, path, O_RDONLY);
    case OPENAT:
        return (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY);
    case OPENAT2:
        return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
    default:
        return (int)syscall(SYS_creat, path, 0644);
    }
}

/* "openat:3,creat:1" becomes the repeating order openat openat openat creat. */
static int parse_mix(char *text, int *order)
{
    int length = 0;
    for (char *part = strtok(text, ","); part; part = strtok(NULL, ",")) {
        char *colon = strchr(part, ':');
        int times = colon ? atoi(colon + 1) : 1, call = 0;
        if (colon)
            *colon = 0;
        while (call < CALLS && strcmp(part, CALL_NAMES[call]))
            call++;
        if (call == CALLS || times < 1 || length + times > MIX_MAX)
            refuse("--mix: a list like openat:3,open:1,openat2:1,creat:1, at most %d in all", MIX_MAX);
        while (times--)
            order[length++] = call;
    }
    return length;
}

/* Existing files DIR/f<k> and, for failing opens, DIR/none/f<k> in a directory that is not there. */
static char (*make_paths(const char *dir, const char *sub, long distinct, int make))[PATH_BYTES]
{
    char(*paths)[PATH_BYTES] = calloc((size_t)distinct, PATH_BYTES);
    for (long k = 0; paths && k < distinct; k++) {
        if (snprintf(paths[k], PATH_BYTES, "%s%s/f%06ld", dir, sub, k) >= PATH_BYTES)
            refuse("--dir is too long");
        if (make)
            make_file(paths[k], 0644);
    }
    return paths ? paths : (refuse("--distinct: out of memory"), NULL);
}

static void put_counts(const char *name, const unsigned long long *counts)
{
    printf(", \"%s\": {", name);
    for (int call = 0; call < CALLS; call++)
        printf("%s\"%s\": %llu", call ? ", " : "", CALL_NAMES[call], counts[call]);
    putchar('}');
}

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {{"count", 1, 0, 'n'},    {"dir", 1, 0, 'd'},    {"enoent", 1, 0, 'e'},
                                            {"seconds", 1, 0, 's'},  {"rate", 1, 0, 'r'},   {"cpu", 1, 0, 'c'},
                                            {"distinct", 1, 0, 'p'}, {"absent", 0, 0, 'a'}, {"mix", 1, 0, 'm'},
                                            {0}};
    unsigned long long count = 0, enoent = 0, rate = 0, ok[CALLS] = {0}, failed[CALLS] = {0}, other = 0, done = 0;
    double seconds = 0;
    int order[MIX_MAX] = {OPENAT}, length = 1;
    const char *dir = NULL;
    long distinct = 1;
    int all_absent = 0;
    for (int c; (c = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        switch (c) {
        case 'n': count = strtoull(optarg, NULL, 10); break;
        case 'd': dir = optarg; break;
        case 'e': enoent = strtoull(optarg, NULL, 10); break;
        case 's': seconds = atof(optarg); break;
        case 'r': rate = strtoull(optarg, NULL, 10); break;
        case 'c': stand_on(atoi(optarg)); break;
        case 'm': length = parse_mix(optarg, order); break;
        case 'a': all_absent = 1; break; /* every open fails: one system call each, no close */
        case 'p': distinct = atol(optarg); break;
        default: return 2;
        }
    }
    if (!dir || distinct < 1 || length < 1 || (count > 0) == (seconds > 0) || enoent > count)
        refuse("usage: opens --dir DIR (--count N [--enoent N] | --seconds S) [--rate N/s] [--cpu C] [--mix CALL:N,...] [--distinct N]"
               " [--absent]");

    char(*there)[PATH_BYTES] = make_paths(dir, "", distinct, !all_absent);
    char(*absent)[PATH_BYTES] = make_paths(dir, "/none", distinct, 0);
    unsigned long long burst = rate / 1000 ? rate / 1000 : 1, limit = count ? count : ~0ULL;
    prctl(PR_SET_TIMERSLACK, 1UL);
    unsigned long long cpu_start = clock_ns(CLOCK_PROCESS_CPUTIME_ID), start = clock_ns(CLOCK_MONOTONIC);
    unsigned long long end = seconds > 0 ? start + (unsigned long long)(seconds * NS_PER_S) : ~0ULL;
    for (; done < limit && (!(seconds > 0) || done % CLOCK_EVERY || clock_ns(CLOCK_MONOTONIC) < end); done++) {
        if (rate && done % burst == 0) {
            unsigned long long due = start + (unsigned long long)((double)done * NS_PER_S / (double)rate);
            struct timespec t = {.tv_sec = (time_t)(due / NS_PER_S), .tv_nsec = (long)(due % NS_PER_S)};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        }
        /* The failing opens are spread evenly: exactly `enoent` of `count`. */
        int fails = all_absent || (enoent && (done + 1) * enoent / count != done * enoent / count), call = order[done % (unsigned)length];
        int fd = open_by(call, (fails ? absent : there)[done % (unsigned long)distinct]);
        if (fd >= 0) {
            close(fd);
            ok[call]++;
        } else if (errno == ENOENT) {
            failed[call]++;
        } else {
            other++;
        }
    }
    unsigned long long elapsed = clock_ns(CLOCK_MONOTONIC) - start, cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_start;
    printf("{\"workload\": \"opens\", \"pid\": %d, \"opens\": %llu", getpid(), done);
    put_counts("ok", ok);
    put_counts("enoent", failed);
    printf(", \"other_errors\": %llu, \"elapsed_ns\": %llu, \"cpu_ns\": %llu, \"ns_per_open\": %.1f}\n", other, elapsed, cpu,
           done ? (double)elapsed / (double)done : 0.0);
    return 0;
}
