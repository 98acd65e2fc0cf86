/* Starts exactly N programs in every way there is, some of which fail, and logs what each exec was given and gave. */
#include "workload.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { EXECVE, VFORK, EXECVEAT, BY_FD, LONG_ARGV, EMPTY_ARG, ODD_ARG, NO_FILE, NO_PERMISSION, NO_FORMAT, KINDS };
static const char *const KIND_NAMES[KINDS] = {"execve",    "vfork",   "execveat", "execveat_fd",   "long_argv",
                                              "empty_arg", "odd_arg", "enoent",   "eacces",        "enoexec"};
enum { LONG_BYTES = 6000, ARGS_MAX = 8 };

static int *shared_ret; /* the child's exec result: 0 unless exec came back */

static void exec_or_leave(int kind, const char *path, int path_fd, char **args)
{
    char *environment[] = {NULL};
    if (kind == EXECVEAT)
        syscall(SYS_execveat, AT_FDCWD, path, args, environment, 0);
    else if (kind == BY_FD)
        syscall(SYS_execveat, path_fd, "", args, environment, AT_EMPTY_PATH);
    else
        execve(path, args, environment);
    *shared_ret = -errno;
    _exit(0);
}

static __attribute__((noinline)) pid_t start(int kind, const char *path, int path_fd, char **args)
{
    pid_t pid = kind == VFORK ? vfork() : fork();
    if (pid == 0)
        exec_or_leave(kind, path, path_fd, args);
    return pid;
}

static void put_log(FILE *log, pid_t pid, const char *kind, const char *path, char **args)
{
    fprintf(log, "{\"pid\": %d, \"ret\": %d, \"kind\": \"%s\", \"path\": ", pid, *shared_ret, kind);
    put_json_string(log, path);
    fputs(", \"argv\": [", log);
    for (int k = 0; args[k]; k++) {
        fputs(k ? ", " : "", log);
        put_json_string(log, args[k]);
    }
    fputs("]}\n", log);
}

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {{"count", 1, 0, 'n'}, {"dir", 1, 0, 'd'}, {"log", 1, 0, 'l'}, {0}};
    static char self[4096], not_executable[4096], no_format[4096], missing[4096], long_argument[LONG_BYTES + 1];
    unsigned long long per_kind[KINDS] = {0}, ok = 0;
    const char *dir = NULL;
    FILE *log = NULL;
    long count = 0;
    if (argc > 1 && !strcmp(argv[1], "--child"))
        return 0;
    for (int c; (c = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        switch (c) {
        case 'n': count = atol(optarg); break;
        case 'd': dir = optarg; break;
        case 'l': log = fopen(optarg, "we"); break;
        default: return 2;
        }
    }
    if (count < 1 || !dir || readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
        refuse("usage: execs --count N --dir DIR [--log FILE]");
    snprintf(not_executable, sizeof(not_executable), "%s/not-executable", dir);
    snprintf(no_format, sizeof(no_format), "%s/no-format", dir);
    snprintf(missing, sizeof(missing), "%s/missing", dir);
    make_file(not_executable, 0644);
    make_file(no_format, 0755); /* an empty file: no binary format takes it */
    memset(long_argument, 'x', LONG_BYTES);
    int self_fd = open(self, O_PATH | O_CLOEXEC);
    shared_ret = mmap(NULL, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (self_fd < 0 || shared_ret == MAP_FAILED)
        refuse("cannot prepare: %s", strerror(errno));

    for (long k = 0; k < count; k++) {
        char number[32];
        int kind = (int)(k % KINDS), given = 0;
        const char *path = kind == NO_FILE ? missing : kind == NO_PERMISSION ? not_executable : kind == NO_FORMAT ? no_format : self;
        snprintf(number, sizeof(number), "--n=%ld", k);
        char *args[ARGS_MAX] = {self, "--child", number};
        for (given = 3; kind == EMPTY_ARG && given < 6; given++)
            args[given] = given == 4 ? "between" : "";
        if (kind == LONG_ARGV)
            args[given++] = long_argument;
        if (kind == ODD_ARG)
            args[given++] = "quote\" back\\slash tab\t line\n caf\xc3\xa9";
        *shared_ret = 0;
        int status = 0;
        pid_t pid = start(kind, path, self_fd, args);
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
            refuse("exec %ld went wrong: status %d, %s", k, status, strerror(errno));
        per_kind[kind]++;
        ok += *shared_ret == 0;
        if (log)
            put_log(log, pid, KIND_NAMES[kind], path, args);
    }
    if (log && fclose(log))
        refuse("--log: %s", strerror(errno));
    printf("{\"workload\": \"execs\", \"pid\": %d, \"execs\": %ld, \"ok\": %llu", getpid(), count, ok);
    printf(", \"enoent\": %llu, \"eacces\": %llu, \"enoexec\": %llu", per_kind[NO_FILE], per_kind[NO_PERMISSION], per_kind[NO_FORMAT]);
    fputs(", \"kinds\": {", stdout);
    for (int kind = 0; kind < KINDS; kind++)
        printf("%s\"%s\": %llu", kind ? ", " : "", KIND_NAMES[kind], per_kind[kind]);
    puts("}}");
    return 0;
}
