/*
 * System calls in flight: what was seen on entry, kept until the exit. A thread is inside one call at a time, so all probes share one table. A thread's
 * place is its id modulo the size, which an array finds in a few nanoseconds where a hash map takes 50. The first thread there keeps the place until it
 * ends; calls of the others go to a hash map, keyed by the task.
 */

struct call {
    u64 task;     /* whose place it is; 0 when it is free */
    u64 enter_ns; /* 0 between calls */
    u64 args[4];
    u64 claims; /* threads that have the place or reach for it */
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

static __always_inline int call_enter(u32 probe, u64 a, u64 b, u64 c, u64 d)
{
    u64 task = current_task();
    if (is_self(FIELD(u32, task, TASK_TGID)))
        return 0;
    struct call *call = call_place(FIELD(u32, task, TASK_PID));
    if (!call)
        return 0;
    if (call->task != task && !call_claim(call, task)) {
        struct call displaced = {.task = task, .enter_ns = bpf_ktime_get_ns(), .args = {a, b, c, d}};
        if (displaced_calls.update(&task, &displaced))
            lose(probe, LOST_INFLIGHT_FULL);
        return 0;
    }
    call->args[0] = a;
    call->args[1] = b;
    call->args[2] = c;
    call->args[3] = d;
    call->enter_ns = bpf_ktime_get_ns();
    return 0;
}

/* The call of the current task, which entered it under this thread id; 0 when that was not seen. To be given to call_done. */
static __always_inline struct call *call_of(u64 task, u32 tid)
{
    struct call *call = call_place(tid);
    if (call && call->task == task && call->enter_ns)
        return call;
    call = displaced_calls.lookup(&task);
    return call && call->enter_ns ? call : 0;
}

static __always_inline struct call *call_exit(void)
{
    u64 task = current_task();
    return call_of(task, FIELD(u32, task, TASK_PID));
}

/* Legal with 0 too. */
static __always_inline int call_done(struct call *call)
{
    if (call)
        call->enter_ns = 0;
    return 0;
}

/* The current thread gives up the place it has under this thread id, if any, perhaps in the middle of a call. */
static __always_inline void call_leave(u64 task, u32 tid)
{
    struct call *call = call_place(tid);
    if (!call || call->task != task)
        return;
    call->enter_ns = 0;
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

/* An argument of the call that ends now, as call_enter was given it; 0 when its entry was not seen. */
static __always_inline u64 call_argument(u32 place)
{
    struct call *call = call_exit();
    return call ? call->args[place & 3] : 0;
}
