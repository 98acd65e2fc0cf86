/*
 * System calls in flight: what was seen on entry, kept until the exit. A thread is inside one call at a time, so all probes share one table. A thread's
 * place is its id modulo the size, which an array finds in a few nanoseconds where a hash map takes 50. The first thread there keeps the place until it
 * ends; calls of the others go to a hash map, keyed by the task.
 */

struct call {
    u64 task;     /* whose place it is; 0 when it is free */
    u64 enter_ns;
    u64 args[6];
    u32 number;    /* as 64-bit programs number calls, whoever makes it */
    u32 in_flight; /* 0 between calls; what the last one was is still there */
    u64 short_pointers; /* whether pointers that it has in memory have 4 bytes, as those of a 32-bit program */
    u64 claims;    /* threads that have the place or reach for it */
};
BPF_ARRAY(calls, struct call, CALL_PLACES);
BPF_HASH(displaced_calls, u64, struct call, DISPLACED_CALLS);

static __always_inline struct call *call_place(u32 tid)
{
    u32 place = tid & (CALL_PLACES - 1);
    return calls.lookup(&place);
}

/* Take a free place. Two threads that reach for it at once both go without: BPF before Linux 5.12 can add atomically, but not compare and swap. */
static __always_inline bool call_claim(struct call *call, u64 task)
{
    if (call->task)
        return false;
    __sync_fetch_and_add(&call->claims, 1);
    if (*(volatile u64 *)&call->claims == 1) {
        call->task = task;
        return true;
    }
    __sync_fetch_and_add(&call->claims, -1);
    return false;
}

/* The place for a call that the current task begins; 0 when there is none. To be filled in, in_flight last. */
static __always_inline struct call *call_begin(u64 task)
{
    struct call *call = call_place(FIELD(u32, task, TASK_PID));
    if (!call || call->task == task || call_claim(call, task))
        return call;
    struct call displaced = {.task = task};
    displaced_calls.update(&task, &displaced);
    return displaced_calls.lookup(&task);
}

/* The last call of the current task, over or not, which entered it under this thread id; 0 when that was not seen. */
static __always_inline struct call *call_last(u64 task, u32 tid)
{
    struct call *call = call_place(tid);
    return call && call->task == task ? call : displaced_calls.lookup(&task);
}

/* The same, of one that is not over. */
static __always_inline struct call *call_of(u64 task, u32 tid)
{
    struct call *call = call_last(task, tid);
    return call && call->in_flight ? call : 0;
}

static __always_inline struct call *call_current(void)
{
    u64 task = current_task();
    return call_of(task, FIELD(u32, task, TASK_PID));
}

/* Legal with 0 too. */
static __always_inline int call_done(struct call *call)
{
    if (call)
        call->in_flight = 0;
    return 0;
}

/* The current thread gives up the place it has under this thread id, if any, perhaps in the middle of a call. */
static __always_inline void call_leave(u64 task, u32 tid)
{
    struct call *call = call_place(tid);
    if (!call || call->task != task)
        return;
    call->in_flight = 0;
    call->task = 0;
    __sync_fetch_and_add(&call->claims, -1);
}

/* The current thread ends. */
static __always_inline void call_forget(void)
{
    u64 task = current_task();
    call_leave(task, FIELD(u32, task, TASK_PID));
    displaced_calls.delete(&task);
}
