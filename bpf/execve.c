/*
 * execve, execveat. A success is seen at sched_process_exec, past the point of no return: the path is the kernel's copy and the arguments are read
 * from the new program's memory before it has run, so nobody can swap them. A failure is seen at the exit of the call, the old memory still in place.
 */

/* The argument that runs over the end of argv is read whole, into `spill`: its length then tells that it was cut. */
struct execve_scratch {
    struct execve_long record;
    u8 spill[ARGV_LONG_EXECVE + 1];
    struct place place; /* where the file itself is, or its path starts */
};
BPF_PERCPU_ARRAY(execve_scratches, struct execve_scratch, 1);

static __always_inline struct execve_scratch *execve_scratch_of_cpu(void)
{
    u32 zero = 0;
    return execve_scratches.lookup(&zero);
}

static __always_inline struct execve_long *execve_compose(u64 enter_ns, s64 ret)
{
    u64 task = current_task();
    struct origin origin = origin_of_current(task);
    struct rule *rule = rule_of(PROBE_EXECVE);
    if (!rule || is_family(origin.ppid) || !passes_outcome(rule->kinds, ret) || !passes_who(rule->kinds, PROBE_EXECVE, task))
        return 0;
    struct execve_scratch *scratch = execve_scratch_of_cpu();
    if (!scratch)
        return 0;
    fill_head((struct head *)&scratch->record, PROBE_EXECVE, task, origin, enter_ns, ret);
    scratch->record.cwd_key = cwd_key(task);
    scratch->record.exe_memfd = scratch->record.exe_upper = 0;
    return &scratch->record;
}

static __always_inline void execve_send_long(struct execve_long *scratch)
{
    struct execve_long *record = long_ring.ringbuf_reserve(LONG_RECORD_BYTES);
    if (!record) {
        lose(PROBE_EXECVE, LOST_RING_FULL);
        return;
    }
    bpf_probe_read_kernel(record, sizeof(*record), scratch);
    long_ring.ringbuf_submit(record, long_wakeup());
}

static __always_inline void execve_send_short(struct execve_long *scratch)
{
    struct execve *record = execve_ring.ringbuf_reserve(EXECVE_RECORD_BYTES);
    if (!record) {
        lose(PROBE_EXECVE, LOST_RING_FULL);
        return;
    }
    bpf_probe_read_kernel(record, __builtin_offsetof(struct execve, path), scratch);
    bpf_probe_read_kernel(record->path, sizeof(record->path), scratch->path);
    bpf_probe_read_kernel(record->path_place, sizeof(record->path_place), scratch->path_place);
    bpf_probe_read_kernel(record->argv, sizeof(record->argv), scratch->argv);
    execve_ring.ringbuf_submit(record, execve_wakeup());
}

PROGRAM(execve, send)
{
    struct execve_scratch *scratch = execve_scratch_of_cpu();
    if (!scratch)
        return 0;
    struct execve_long *record = &scratch->record;
    if (!walk(record->path_place, sizeof(record->path_place), &record->path_place_len, scratch->place, 128))
        record->path_whole |= PLACE_CUT;
    if (has_rule(PROBE_EXECVE, RATE) && throttled(PROBE_EXECVE, record->cgroup_id))
        return 0;
    if (record->path_len > PATH_SHORT_EXECVE || record->argv_len > ARGV_SHORT_EXECVE || record->path_place_len > PATH_PLACE_SHORT_EXECVE)
        execve_send_long(record);
    else
        execve_send_short(record);
    return 0;
}

static __always_inline bool execve_passes(struct execve_long *record, struct place place)
{
    struct prefixes *p = prefixes_of_cpu();
    if (!p)
        return true;
    bpf_probe_read_kernel(p->string, sizeof(p->string), record->path);
    p->string_len = record->path_len;
    return record->path_len >= sizeof(p->string) || !prefixes_walk(p, place) || passes_prefixes(p, PROBE_EXECVE, record->path_whole);
}

PROGRAM(execve, paths)
{
    struct execve_scratch *scratch = execve_scratch_of_cpu();
    if (scratch && execve_passes(&scratch->record, scratch->place))
        programs.call(ctx, PROGRAM_EXECVE_SEND);
    return 0;
}

static __always_inline void execve_go_on(void *ctx)
{
    if (has_rule(PROBE_EXECVE, ON_PATH))
        programs.call(ctx, PROGRAM_EXECVE_PATHS);
    programs.call(ctx, PROGRAM_EXECVE_SEND);
}

static __always_inline void execve_is_at(struct place place)
{
    struct execve_scratch *scratch = execve_scratch_of_cpu();
    if (scratch)
        scratch->place = place;
}

/* The arguments of a call that failed: an array of pointers in the caller's memory. */
static __always_inline void execve_read_argv(struct execve_long *scratch, u64 argv, u32 pointer_bytes)
{
    u64 argument = 0, used = 0;
    u32 i = 0;
    bool unread = false;
    for (; argv && i < ARGV_COUNT_MAX && used <= ARGV_LONG_EXECVE; i++) {
        argument = 0;
        unread = bpf_probe_read_user(&argument, pointer_bytes, (void *)(argv + i * pointer_bytes));
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

static __always_inline void execve_failed(void *ctx, struct call *call, s64 ret, struct path path, u64 argv)
{
    struct execve_long *scratch = execve_compose(call->enter_ns, ret);
    if (!scratch)
        return;
    long length = bpf_probe_read_user_str(scratch->path, sizeof(scratch->path), (void *)path.string);
    scratch->path_len = length > 0 ? length - 1 : 0;
    scratch->path_whole = 0;
    if (call->short_pointers)
        execve_read_argv(scratch, argv, 4);
    else
        execve_read_argv(scratch, argv, 8);
    execve_is_at(place_of_path(path, length > 1 ? scratch->path[0] : 0));
    execve_go_on(ctx);
}

EXIT(execve, execve) { execve_failed(ctx, call, ret, PATH_AT(AT_FDCWD, ARG(0)), ARG(1)); }
EXIT(execve, execveat) { execve_failed(ctx, call, ret, PATH_OR_START(ARG(0), ARG(1), ARG(4)), ARG(2)); }

#define DEV_FD_BYTES 8 /* "/dev/fd/" */
#define FD_DIGITS 10

/* The path that was asked for, in the kernel's memory. To one that starts from a descriptor the kernel gives a name: /dev/fd/N, or /dev/fd/N/path. */
static __always_inline struct path execve_asked(u64 program)
{
    struct path path = PATH_AT(AT_FDCWD, READ(u64, program, BINPRM_FILENAME));
#ifdef BINPRM_FDPATH
    u8 name[DEV_FD_BYTES + FD_DIGITS + 2] = {};
    if (READ(u64, program, BINPRM_FDPATH) && bpf_probe_read_kernel_str(name, sizeof(name), (void *)path.string) > 0) {
        u32 fd = 0, at = DEV_FD_BYTES;
#pragma unroll
        for (u32 place = DEV_FD_BYTES; place < DEV_FD_BYTES + FD_DIGITS; place++) {
            if (place == at && name[place] >= '0' && name[place] <= '9') {
                fd = fd * 10 + name[place] - '0';
                at = place + 1;
            }
        }
        path.dirfd = fd;
        path.string += at + (READ(u8, path.string, at) == '/');
    }
#endif
    return path;
}

/* Where the file that was asked for is. Of a script, the kernel has only the interpreter open by now. */
static __always_inline struct place execve_place(struct execve_long *scratch, u64 program, u64 task, struct path asked)
{
    bool whole = READ(u64, program, BINPRM_FILENAME) == READ(u64, program, BINPRM_INTERP);
    scratch->path_whole = whole ? PLACE_WHOLE : 0;
    return whole ? place_of_exe(task) : place_of_path(asked, scratch->path_len ? scratch->path[0] : 0);
}

static __always_inline void execve_origin(struct execve_long *scratch, u64 task)
{
    u64 file = FIELD(u64, FIELD(u64, task, TASK_MM), MM_EXE_FILE);
    u64 inode = FIELD(u64, file, FILE_INODE), magic = READ(u64, READ(u64, inode, INODE_SB), SUPER_BLOCK_MAGIC);
    u64 name = 0;
    bpf_probe_read_kernel(&name, 6, (void *)READ(u64, place_of_file(file).dentry, DENTRY_NAME + 8));
    scratch->exe_memfd = magic == TMPFS_MAGIC && !READ(u32, inode, INODE_NLINK) && name == MEMFD_NAME;
    /* An overlay's own part of an inode follows the inode, and begins with the file on the upper layer. */
    scratch->exe_upper = magic == OVERLAYFS_MAGIC && READ(u64, inode, INODE_SIZE);
}

/* task, tid before exec, struct linux_binprm */
RAW(execve, sched_process_exec)
{
    u64 task = current_task();
    if (is_self(FIELD(u32, task, TASK_TGID)))
        return 0;
    struct call *call = call_of(task, ctx->args[1]);
    struct execve_long *scratch = execve_compose(call ? call->enter_ns : bpf_ktime_get_ns(), 0);
    call_done(call);
    if (!scratch)
        return 0;
    struct path asked = execve_asked(ctx->args[2]);
    long length = bpf_probe_read_kernel_str(scratch->path, sizeof(scratch->path), (void *)asked.string);
    scratch->path_len = length > 0 ? length - 1 : 0;
    execve_origin(scratch, task);
    execve_read_mm(scratch, FIELD(u64, task, TASK_MM));
    execve_is_at(execve_place(scratch, ctx->args[2], task, asked));
    execve_go_on(ctx);
    return 0;
}
