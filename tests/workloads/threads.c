/* M threads open a file each of their own K times; some leave half-way; at the end one that is not the leader may exec. */
#include "workload.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/syscall.h>

struct worker {
    pthread_t thread;
    pid_t tid;
    long opens;
    char path[256], name[16];
};

static char self[4096];
static pthread_barrier_t all_started;

static void *work(void *given)
{
    struct worker *w = given;
    w->tid = gettid();
    pthread_setname_np(pthread_self(), w->name);
    pthread_barrier_wait(&all_started); /* so that no thread id is used twice */
    for (long k = 0; k < w->opens; k++) {
        int fd = (int)syscall(SYS_openat, AT_FDCWD, w->path, O_RDONLY);
        if (fd < 0)
            refuse("%s: %s", w->path, strerror(errno));
        close(fd);
    }
    return NULL;
}

/* The kernel ends every other thread and gives this one the leader's id: the process goes on under the same pid. */
static void *exec_here(void *line_end)
{
    char *args[] = {self, "--child", "--from-thread", NULL}, *environment[] = {NULL};
    printf(", \"exec_tid\": %d%s", gettid(), (const char *)line_end);
    fflush(stdout);
    execve(self, args, environment);
    refuse("exec from a thread: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {{"threads", 1, 0, 't'}, {"opens", 1, 0, 'n'}, {"dir", 1, 0, 'd'},
                                            {"early", 1, 0, 'e'},   {"exec", 0, 0, 'x'},  {0}};
    const char *dir = NULL;
    long threads = 0, opens = 0, early = 0, total = 0;
    int then_exec = 0;
    if (argc > 1 && !strcmp(argv[1], "--child"))
        return 0;
    for (int c; (c = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        switch (c) {
        case 't': threads = atol(optarg); break;
        case 'n': opens = atol(optarg); break;
        case 'd': dir = optarg; break;
        case 'e': early = atol(optarg); break;
        case 'x': then_exec = 1; break;
        default: return 2;
        }
    }
    if (!dir || threads < 1 || opens < 1 || early > threads || readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
        refuse("usage: threads --threads M --opens K --dir DIR [--early E: this many leave after K/2 opens] [--exec]");

    struct worker *workers = calloc((size_t)threads, sizeof(*workers));
    if (!workers || pthread_barrier_init(&all_started, NULL, (unsigned)threads))
        refuse("--threads: %s", strerror(errno));
    for (long k = 0; k < threads; k++) {
        struct worker *w = &workers[k];
        w->opens = k < early ? opens / 2 : opens;
        total += w->opens;
        snprintf(w->path, sizeof(w->path), "%s/thread%ld", dir, k);
        snprintf(w->name, sizeof(w->name), "worker-%u", (unsigned)(k % 10000)); /* a comm holds 15 bytes */
        make_file(w->path, 0644);
        if (pthread_create(&w->thread, NULL, work, w))
            refuse("thread %ld: %s", k, strerror(errno));
    }
    for (long k = 0; k < threads; k++)
        pthread_join(workers[k].thread, NULL);

    printf("{\"workload\": \"threads\", \"pid\": %d, \"opens\": %ld, \"threads\": [", getpid(), total);
    for (long k = 0; k < threads; k++)
        printf("%s{\"tid\": %d, \"comm\": \"%s\", \"path\": \"%s\", \"opens\": %ld}", k ? ", " : "", workers[k].tid, workers[k].name,
               workers[k].path, workers[k].opens);
    putchar(']');
    if (then_exec) {
        pthread_t last;
        if (pthread_create(&last, NULL, exec_here, "}\n") || pthread_join(last, NULL))
            refuse("the last thread: %s", strerror(errno));
    }
    puts(", \"exec_tid\": null}");
    return 0;
}
