/* Life of processes: fork, exec, exit, through a small ring of their own, so that ancestry survives a flood of anything else. */

enum { FORK = 1, EXEC = 2, EXIT = 3 };

static __always_inline struct process *process_compose(u64 task, u32 action)
{
    struct process *record = process_ring.ringbuf_reserve(sizeof(*record));
    if (!record) {
        lose(PROBE_PROCESS, LOST_RING_FULL);
        return 0;
    }
    u64 parent_leader = READ(u64, READ(u64, task, TASK_REAL_PARENT), TASK_GROUP_LEADER);
    fill_head((struct head *)record, current_task(), origin_of(task), bpf_ktime_get_ns(), 0);
    record->latency_ns = 0;
    record->action = action;
    record->status = 0;
    record->parent_start_ns = READ(u64, parent_leader, TASK_START_BOOTTIME);
    bpf_probe_read_kernel(record->parent_comm, sizeof(record->parent_comm), (void *)(parent_leader + TASK_COMM));
    return record;
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
    bpf_probe_read_kernel(record->comm, sizeof(record->comm), (void *)(child + TASK_COMM));
    process_ring.ringbuf_submit(record, QUIETLY);
    return 0;
}

/* task, tid before exec: a thread that is not the leader becomes it, and has another id from now on */
RAW(process, sched_process_exec)
{
    u64 current = current_task();
    if ((u32)ctx->args[1] != FIELD(u32, current, TASK_PID))
        call_leave(current, ctx->args[1]);
    struct process *record = process_compose(ctx->args[0], EXEC);
    if (record)
        process_ring.ringbuf_submit(record, QUIETLY);
    return 0;
}

/* task, and since Linux 6.16 whether it was the last thread of its group. Before, the count of live threads tells, for two racing threads both. */
RAW(process, sched_process_exit)
{
    u64 task = ctx->args[0];
    call_forget();
#ifdef EXIT_TELLS_GROUP_DEAD
    if (!(u8)ctx->args[1])
        return 0;
#else
    if (READ(u32, READ(u64, task, TASK_SIGNAL), SIGNAL_LIVE))
        return 0;
#endif
    struct process *record = process_compose(task, EXIT);
    if (!record)
        return 0;
    record->tid = record->pid;
    record->status = READ(u32, task, TASK_EXIT_CODE);
    process_ring.ringbuf_submit(record, QUIETLY);
    return 0;
}
