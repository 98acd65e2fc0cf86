/*
 * Life of processes: fork, exec, exit, through a ring of their own, so that ancestry survives a flood of anything else. Nothing filters them. Through the
 * same ring goes what numbers in other records stand for: working directories and cgroups.
 */

#define PROCESS_STEPS 48

enum { FORK = 1, EXEC = 2, EXIT = 3, CWD = 4, CGROUP = 5, CGROUP_GONE = 6 };

#ifdef MNT_NS_NUMBER
#define NUMBER_OF_MNT_NS(namespace) READ(u64, namespace, MNT_NS_NUMBER)
#else
#define NUMBER_OF_MNT_NS(namespace) 0ULL
#endif

/*
 * The mount namespace of a task, by its inode number and above that its own: as soon as a namespace is no more another gets its inode number, and one
 * container after the other has the same.
 */
static __always_inline u64 mount_namespace(u64 task)
{
    u64 proxy = READ(u64, task, TASK_NSPROXY), namespace = proxy ? READ(u64, proxy, NSPROXY_MNT_NS) : 0;
    return namespace ? NUMBER_OF_MNT_NS(namespace) << 32 | READ(u32, namespace, MNT_NS_INUM) : 0;
}

/* Room for a record of `task` and its fields; nothing leads to a file yet. */
static __always_inline struct process *process_compose(u64 task, u32 action)
{
    struct process *record = process_ring.ringbuf_reserve(PROCESS_RECORD_BYTES);
    if (!record) {
        if (action != CWD) /* it is told at the next event */
            lose(PROBE_PROCESS, LOST_RING_FULL);
        return 0;
    }
    u64 parent_leader = READ(u64, READ(u64, task, TASK_REAL_PARENT), TASK_GROUP_LEADER);
    fill_head((struct head *)record, PROBE_PROCESS, current_task(), origin_of(task), bpf_ktime_get_ns(), 0);
    record->latency_ns = 0;
    record->action = action;
    record->status = 0;
    record->mount_ns = mount_namespace(task);
    record->parent_start_ns = READ(u64, parent_leader, TASK_START_BOOTTIME);
    bpf_probe_read_kernel(record->parent_comm, sizeof(record->parent_comm), (void *)(parent_leader + TASK_COMM));
    record->file_len = record->cwd_len = record->cut = 0;
    return record;
}

/* Mount namespaces, and how often somebody was met there before a program was executed; after that they are settled. */
BPF_TABLE("lru_hash", u64, u8, process_mount_namespaces, MOUNT_NAMESPACES_REMEMBERED);
#define SETTLED 16

/*
 * A program that is executed in a mount namespace for the first time wakes up the reader, as does, a few times, who comes to other directories there before:
 * who is in there is called by files that can be read as long as somebody is, and a runtime has come to the container's root some time before that program.
 */
static __always_inline u64 namespace_wakeup(u64 mount_ns, u32 action)
{
    u8 *known = process_mount_namespaces.lookup(&mount_ns), times = known ? *known : 0;
    if (times >= SETTLED)
        return process_wakeup();
    times = action == EXEC ? SETTLED : times + 1;
    process_mount_namespaces.update(&mount_ns, &times);
    return BPF_RB_FORCE_WAKEUP;
}

/* The current process, its program and its working directory; whether there was room. */
static __always_inline bool process_tell(u32 action, struct place file, struct place cwd)
{
    struct process *record = process_compose(current_task(), action);
    if (!record)
        return false;
    record->cwd_key = cwd_key(current_task());
    if (!walk(record->file, sizeof(record->file), &record->file_len, file, PROCESS_STEPS))
        record->cut |= 1;
    if (!walk(record->cwd, sizeof(record->cwd), &record->cwd_len, cwd, PROCESS_STEPS))
        record->cut |= 2;
    process_ring.ringbuf_submit(record, namespace_wakeup(record->mount_ns, action));
    return true;
}

/* parent, child: the record is about the child, while the parent is current. A new thread is no new process. */
RAW(process, sched_process_fork)
{
    u64 child = ctx->args[1];
    u32 pid = READ(u32, child, TASK_PID);
    if (pid != READ(u32, child, TASK_TGID))
        return 0;
    struct process *record = process_compose(child, FORK);
    if (!record)
        return 0;
    record->pid = pid;
    record->tid = pid;
    record->cgroup_id = CGROUP_OF(READ, child);
    bpf_probe_read_kernel(record->comm, sizeof(record->comm), (void *)(child + TASK_COMM));
    process_ring.ringbuf_submit(record, process_wakeup());
    return 0;
}

/* task, tid before exec: a thread that is not the leader becomes it, and has another id from now on */
RAW(process, sched_process_exec)
{
    u64 current = current_task();
    if ((u32)ctx->args[1] != FIELD(u32, current, TASK_PID))
        call_leave(current, ctx->args[1]);
    process_tell(EXEC, place_of_exe(current), place_of_cwd(current));
    return 0;
}

/* Working directories that have been told of, by their key. */
BPF_TABLE("lru_hash", u64, u8, process_cwds, CWDS_REMEMBERED);

/* An event in another working directory than the last here: the node is told which that is, once, and the event goes on. */
PROGRAM(process, cwd)
{
    struct draft *draft = draft_of_cpu();
    if (!draft)
        return 0;
    u64 key = draft->cwd_key;
    u8 told = 1;
    if (process_cwds.lookup(&key) || process_tell(CWD, (struct place){}, place_of_cwd(current_task())))
        process_cwds.update(&key, &told), draft->cwd_told = key;
    programs.call(ctx, draft->finish);
    return 0;
}

RAW(process, sched_process_exit)
{
    u64 task = ctx->args[0];
    call_forget();
    if (!is_last_thread(ctx))
        return 0;
    struct process *record = process_compose(task, EXIT);
    if (!record)
        return 0;
    record->tid = record->pid;
    record->status = READ(u32, task, TASK_EXIT_CODE);
    process_ring.ringbuf_submit(record, process_wakeup());
    return 0;
}

/* Only to tell how long a path is. The kernel has it in a buffer of this size (TRACE_CGROUP_PATH_LEN, kernel/cgroup/cgroup-internal.h). */
#define CGROUP_PATH_BYTES 1024
struct cgroup_path {
    u8 text[CGROUP_PATH_BYTES];
};
BPF_PERCPU_ARRAY(cgroup_paths, struct cgroup_path, 1);

/* Whether a task's cgroup can be one of this hierarchy: v2, or the pids controller's own. */
static __always_inline bool is_told_of(u64 root, u64 hierarchy)
{
#ifdef CSS_SET_PIDS
    return !hierarchy || READ(u32, root, CGROUP_ROOT_SUBSYS) & 1 << CGROUP_PIDS;
#else
    return !hierarchy;
#endif
}

/*
 * A cgroup: its id, that of the one it is in, and its path, of a long one the end. It is told of before anything can be in it: the kernel holds the lock on
 * cgroups, and nobody has seen its directory yet.
 */
static __always_inline int cgroup_tell(u64 cgroup, u64 path, u32 action)
{
    u32 zero = 0;
    struct cgroup_path *whole = cgroup_paths.lookup(&zero);
    u64 hierarchy = CGROUP_HIERARCHY(READ, cgroup), parent = READ(u64, READ(u64, cgroup, CGROUP_PARENT), CSS_CGROUP);
    if (!whole || !is_told_of(READ(u64, cgroup, CGROUP_ROOT), hierarchy))
        return 0;
    struct process *record = process_compose(current_task(), action);
    if (!record)
        return 0;
    record->cgroup_id = hierarchy << CGROUP_HIERARCHY_SHIFT | CGROUP_ID(READ, cgroup);
    record->parent_start_ns = hierarchy << CGROUP_HIERARCHY_SHIFT | CGROUP_ID(READ, parent);
    long size = bpf_probe_read_kernel_str(whole->text, CGROUP_PATH_BYTES, (void *)path);
    u64 length = size > 0 ? size - 1 : 0, left_out = length > sizeof(record->file) ? length - sizeof(record->file) : 0;
    bpf_probe_read_kernel(record->file, sizeof(record->file), (void *)(path + left_out));
    record->file_len = length - left_out;
    record->cut = left_out > 0;
    process_ring.ringbuf_submit(record, process_wakeup());
    return 0;
}

/* cgroup, path */
RAW(process, cgroup_mkdir)
{
    return cgroup_tell(ctx->args[0], ctx->args[1], CGROUP);
}

RAW(process, cgroup_rmdir)
{
    return cgroup_tell(ctx->args[0], ctx->args[1], CGROUP_GONE);
}
