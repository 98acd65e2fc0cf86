/* What every workload needs: a clock, a way to refuse, a CPU to stand on, and JSON strings. */
#ifndef INFRASIGHT_WORKLOAD_H
#define INFRASIGHT_WORKLOAD_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000ULL

static inline unsigned long long clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (unsigned long long)t.tv_sec * NS_PER_S + (unsigned long long)t.tv_nsec;
}

/* Exit 2, as for a bad option: nothing that was printed before may be believed. */
static inline __attribute__((noreturn, format(printf, 1, 2))) void refuse(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    exit(2);
}

static inline void stand_on(int cpu)
{
    cpu_set_t set;
    if (cpu < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set))
        refuse("cannot run on cpu %d: %s", cpu, strerror(errno));
}

/* A plain file made without opening it: mknod(2) is no open, so that the counts hold. */
static inline void make_file(const char *path, mode_t mode)
{
    if (mknod(path, S_IFREG | mode, 0) && errno != EEXIST)
        refuse("cannot make %s: %s", path, strerror(errno));
}

/* `text` has to be UTF-8. */
static inline void put_json_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            fprintf(out, "\\u%04x", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}
#endif
