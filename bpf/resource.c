/*
 * What each process uses. The kernel itself counts processor time, context switches, page faults and bytes read and written for each thread; what has come
 * to be since the last look is added to the process's account when a thread gives up the processor, once a second while it does not, and when it ends. What it takes to end
 * is its own doing too (giving back much memory takes long), so it is told when its last thread gives up the processor for good.
 */

/* What a thread had used when it was last looked at. */
struct meter {
    u32 known; /* whether it was looked at before */
    u32 last;  /* the last of its process to end */
    u64 cpu_ns;
    u64 voluntary;
    u64 involuntary;
    u64 read;
    u64 written;
    u64 kernel_faults; /* since it was first looked at */
    u64 user_faults;   /* those of all that are not of the kernel */
};
TEMPLATE(places.h, meter)

/* Tells a thread from most others; its id would not do, since it may change (exec by a thread that is not the leader). */
static __always_inline u32 meter_number(u64 address) { return address * 0x9e3779b97f4a7c15ULL >> 40; }

#define ADD(sum, value, last)                                                                      \
    do {                                                                                           \
        u64 _now = (value);                                                                        \
        if (_now != (last)) {                                                                      \
            __sync_fetch_and_add(&(sum), _now - (last));                                           \
            (last) = _now;                                                                         \
        }                                                                                          \
    } while (0)

static __always_inline u64 resource_since(void)
{
    u32 probe = PROBE_RESOURCE;
    u64 *since = counting_since.lookup(&probe);
    return since ? *since : 0;
}

/* Page faults of a thread that are not known to be of the kernel. Nothing of ours runs at each of them: a program has a thousand before it has begun. */
static __always_inline u64 resource_user_faults(u64 task, struct meter *meter)
{
    return FIELD(u64, task, TASK_MIN_FLT) + FIELD(u64, task, TASK_MAJ_FLT) - meter->kernel_faults;
}

/* The meter of a thread, which begins with what it has used, if it has run since before counting began. */
static __always_inline struct meter *resource_meter(u64 task, u32 number)
{
    struct meter *meter = meter_take(task, number);
    if (!meter || meter->known)
        return meter;
    meter->known = 1;
    if (READ(u64, task, TASK_START_BOOTTIME) >= resource_since())
        return meter;
    meter->cpu_ns = READ(u64, task, TASK_SUM_EXEC_RUNTIME);
    meter->voluntary = READ(u64, task, TASK_NVCSW);
    meter->involuntary = READ(u64, task, TASK_NIVCSW);
    meter->user_faults = READ(u64, task, TASK_MIN_FLT) + READ(u64, task, TASK_MAJ_FLT);
#ifdef TASK_RCHAR
    meter->read = READ(u64, task, TASK_RCHAR);
    meter->written = READ(u64, task, TASK_WCHAR);
#endif
    return meter;
}

/* `open`: an account is opened if there is none. */
static __always_inline struct meter *resource_look(u64 task, bool open)
{
    struct resource *account = resource_account(task, open);
    struct meter *meter = account ? resource_meter(task, meter_number(bpf_get_current_task())) : 0;
    if (!meter)
        return 0;
    ADD(account->cpu_ns, FIELD(u64, task, TASK_SUM_EXEC_RUNTIME), meter->cpu_ns);
    ADD(account->voluntary_switches, FIELD(u64, task, TASK_NVCSW), meter->voluntary);
    ADD(account->involuntary_switches, FIELD(u64, task, TASK_NIVCSW), meter->involuntary);
    /* One that begins in the kernel is counted there before the kernel counts it among all: for that moment there is one too few. */
    u64 faults = resource_user_faults(task, meter);
    if ((s64)(faults - meter->user_faults) > 0)
        ADD(account->user_faults, faults, meter->user_faults);
#ifdef TASK_RCHAR
    ADD(account->bytes_read, FIELD(u64, task, TASK_RCHAR), meter->read);
    ADD(account->bytes_written, FIELD(u64, task, TASK_WCHAR), meter->written);
#endif
    return meter;
}

static __always_inline bool is_ending(u64 task) { return FIELD(u32, task, TASK_FLAGS) & PF_EXITING; }

static __always_inline struct resource *resource_of_current(void)
{
    u64 task = current_task();
    return resource_account(task, !is_ending(task));
}

/* preempt, previous, next: which has slept until now, perhaps since before counting began. */
RAW(resource, sched_switch)
{
    u64 task = current_task(), next = ctx->args[2];
    if (!resource_since())
        return 0;
    resource_meter(next, meter_number(next));
    struct meter *meter = resource_look(task, !is_ending(task));
    if (!(FIELD(u32, task, TASK_STATE) & TASK_DEAD))
        return 0;
    if (meter && meter->last)
        resource_settle(task);
    meter_leave(task, meter_number(bpf_get_current_task()));
    return 0;
}

/* It may come in the middle of what is done at the exit. */
TICK(resource, second)
{
    u64 task = current_task();
    if (!is_ending(task))
        resource_look(task, true);
    return 0;
}

/* One that comes after the last, whose process may have been told by now, opens nothing. */
RAW(resource, sched_process_exit)
{
    u64 task = current_task();
    bool last = is_last_thread(ctx);
    struct meter *meter = resource_look(task, last || FIELD(u32, FIELD(u64, task, TASK_SIGNAL), SIGNAL_LIVE));
    if (!last)
        return 0;
    resource_named(task);
    if (meter)
        meter->last = 1;
    else
        resource_settle(task);
    return 0;
}

RAW(resource, page_fault_kernel)
{
    struct resource *account = resource_of_current();
    u64 address = bpf_get_current_task();
    struct meter *meter = meter_find(address, meter_number(address));
    if (!account || !meter)
        return 0;
    __sync_fetch_and_add(&account->kernel_faults, 1);
    meter->kernel_faults++;
    return 0;
}

#define PAGES(bytes) (((bytes) + BPF_PAGE_SIZE - 1) & ~(u64)(BPF_PAGE_SIZE - 1))

static __always_inline void resource_mapped(u64 more, u64 less)
{
    struct resource *account = resource_of_current();
    if (!account)
        return;
    if (more)
        __sync_fetch_and_add(&account->mapped_bytes, more);
    if (less)
        __sync_fetch_and_add(&account->unmapped_bytes, less);
}

EXIT(resource, mmap)
{
    if (ret >= 0 || ret < -4095)
        resource_mapped(PAGES(ARG(1)), 0);
}

EXIT(resource, munmap)
{
    if (ret == 0)
        resource_mapped(0, PAGES(ARG(1)));
}

EXIT(resource, mremap)
{
    u64 before = ARG(3) & MREMAP_DONTUNMAP ? 0 : PAGES(ARG(1)), after = PAGES(ARG(2));
    if (ret >= 0 || ret < -4095)
        resource_mapped(after > before ? after - before : 0, before > after ? before - after : 0);
}

/* Only on entry is it known where the break was. */
ENTER(resource, brk) { ARG(1) = FIELD(u64, FIELD(u64, current_task(), TASK_MM), MM_BRK); }

EXIT(resource, brk)
{
    struct resource *account = resource_of_current();
    u64 before = ARG(1), after = ret;
    if (!account)
        return;
    if (after > before)
        __sync_fetch_and_add(&account->brk_grown_bytes, after - before);
    if (after < before)
        __sync_fetch_and_add(&account->brk_shrunk_bytes, before - after);
}

/* Calls on sockets, which the kernel does not count among bytes read and written. */
static __always_inline void resource_sent(s64 bytes)
{
    struct resource *account = bytes > 0 ? resource_of_current() : 0;
    if (account)
        __sync_fetch_and_add(&account->bytes_sent, bytes);
}

static __always_inline void resource_received(s64 bytes)
{
    struct resource *account = bytes > 0 ? resource_of_current() : 0;
    if (account)
        __sync_fetch_and_add(&account->bytes_received, bytes);
}

#define MESSAGES_MAX 1024 /* UIO_MAXIOV: more are not taken at once */

/* struct mmsghdr: a struct msghdr, of 56 bytes or, in 32-bit programs, 28, then how many bytes it took or brought. */
static __always_inline u64 resource_bytes_of(struct call *call, u64 messages, s64 count)
{
    u64 bytes = 0, apart = call->short_pointers ? 32 : 64;
    for (u32 i = 0; i < MESSAGES_MAX; i++) {
        u32 length = 0;
        if (i >= count || bpf_probe_read_user(&length, sizeof(length), (void *)(messages + i * apart + apart / 8 * 7)))
            break;
        bytes += length;
    }
    return bytes;
}

EXIT(resource, sendto) { resource_sent(ret); }
EXIT(resource, sendmsg) { resource_sent(ret); }
EXIT(resource, sendmmsg) { resource_sent(resource_bytes_of(call, ARG(1), ret)); }
EXIT(resource, recvfrom) { resource_received(ret); }
EXIT(resource, recvmsg) { resource_received(ret); }
EXIT(resource, recvmmsg) { resource_received(resource_bytes_of(call, ARG(1), ret)); }
