/*
 * execve, execveat. A success is seen at sched_process_exec, past the point of no return: the path is the kernel's copy and the arguments are read
 * from the new program's memory before it has run, so nobody can swap them. A failure is seen at the exit of the call, the old memory still in place.
 */

/* The argument that runs over the end of argv is read whole, into `spill`: its length then tells that it was cut. */
struct execve_scratch {
    struct execve_long record;
    u8 spill[ARGV_LONG_EXECVE + 1];
};
BPF_PERCPU_ARRAY(execve_scratches, struct execve_scratch, 1);

static __always_inline struct execve_long *execve_compose(u64 enter_ns, s64 ret)
{
    u32 zero = 0;
    u64 task = current_task();
    struct origin origin = origin_of_current(task);
    struct execve_scratch *scratch = is_family(origin.ppid) ? 0 : execve_scratches.lookup(&zero);
    if (!scratch)
        return 0;
    fill_head((struct head *)&scratch->record, task, origin, enter_ns, ret);
    return &scratch->record;
}

static __always_inline void execve_send(struct execve_long *scratch)
{
    u32 path_len = scratch->path_len, argv_len = scratch->argv_len;
    if (path_len <= PATH_SHORT_EXECVE && argv_len <= ARGV_SHORT_EXECVE) {
        struct execve *record = execve_ring.ringbuf_reserve(sizeof(*record));
        if (!record) {
            lose(PROBE_EXECVE, LOST_RING_FULL);
            return;
        }
        bpf_probe_read_kernel(record, __builtin_offsetof(struct execve, path), scratch);
        bpf_probe_read_kernel(record->path, sizeof(record->path), scratch->path);
        bpf_probe_read_kernel(record->argv, sizeof(record->argv), scratch->argv);
        execve_ring.ringbuf_submit(record, QUIETLY);
        return;
    }
    struct execve_long *record = execve_long_ring.ringbuf_reserve(sizeof(*record));
    if (!record) {
        lose(PROBE_EXECVE, LOST_RING_FULL);
        return;
    }
    bpf_probe_read_kernel(record, sizeof(*record), scratch);
    execve_long_ring.ringbuf_submit(record, QUIETLY);
}

/* The arguments of a call that failed: an array of pointers in the caller's memory. */
static __always_inline void execve_read_argv(struct execve_long *scratch, u64 argv)
{
    u64 argument = 0, used = 0;
    u32 i = 0;
    bool unread = false;
    for (; argv && i < ARGV_COUNT_MAX && used <= ARGV_LONG_EXECVE; i++) {
        unread = bpf_probe_read_user(&argument, sizeof(argument), (void *)(argv + i * sizeof(argument)));
        if (unread || !argument)
            break;
        long length = bpf_probe_read_user_str((u8 *)scratch->argv + used, ARGV_LONG_EXECVE + 1, (void *)argument);
        unread = length < 0;
        if (unread)
            break;
        used += length;
    }
    /* More than fits, more arguments than are looked at, or one that is not in memory: a call that failed early never touched it. */
    scratch->argv_truncated = used > ARGV_LONG_EXECVE || i == ARGV_COUNT_MAX || unread;
    scratch->argv_len = used > ARGV_LONG_EXECVE ? ARGV_LONG_EXECVE : used;
}

/* The arguments of a program that has just been loaded: one stretch of its stack. */
static __always_inline void execve_read_mm(struct execve_long *scratch, u64 mm)
{
    u64 start = READ(u64, mm, MM_ARG_START), size = READ(u64, mm, MM_ARG_END) - start;
    scratch->argv_truncated = size > ARGV_LONG_EXECVE;
    if (size > ARGV_LONG_EXECVE)
        size = ARGV_LONG_EXECVE;
    scratch->argv_len = bpf_probe_read_user(scratch->argv, (u32)size, (void *)start) ? 0 : size;
}

static __always_inline int execve_failed(long ret)
{
    struct call *call = call_exit();
    if (!call)
        return 0;
    struct execve_long *scratch = execve_compose(call->enter_ns, ret);
    if (scratch) {
        long length = bpf_probe_read_user_str(scratch->path, sizeof(scratch->path), (void *)call->args[0]);
        scratch->path_len = length > 0 ? length - 1 : 0;
        execve_read_argv(scratch, call->args[1]);
        execve_send(scratch);
    }
    return call_done(call);
}

ENTER(execve, execve) { return call_enter(PROBE_EXECVE, ARG(0), ARG(1), 0, 0); }
ENTER(execve, execveat) { return call_enter(PROBE_EXECVE, ARG(1), ARG(2), 0, 0); }

EXIT(execve, execve) { return execve_failed(ret); }
EXIT(execve, execveat) { return execve_failed(ret); }

/* task, tid before exec, struct linux_binprm */
RAW(execve, sched_process_exec)
{
    if (is_self(bpf_get_current_pid_tgid() >> 32))
        return 0;
    struct call *call = call_of(current_task(), ctx->args[1]);
    struct execve_long *scratch = execve_compose(call ? call->enter_ns : bpf_ktime_get_ns(), 0);
    call_done(call);
    if (!scratch)
        return 0;
    long length = bpf_probe_read_kernel_str(scratch->path, sizeof(scratch->path), (void *)READ(u64, ctx->args[2], BINPRM_FILENAME));
    scratch->path_len = length > 0 ? length - 1 : 0;
    execve_read_mm(scratch, FIELD(u64, current_task(), TASK_MM));
    execve_send(scratch);
    return 0;
}
