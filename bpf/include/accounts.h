/*
 * What a process has done, summed up in the kernel: a record that grows as long as the process lives, and is told when it ends. The node looks at all of
 * them from time to time meanwhile (infrasight/kernel/accounts.py). A template, as places.h.
 */
BPF_F_TABLE("hash", struct ended, struct @_place, @_ended, $_ENDED, BPF_F_NO_PREALLOC);

/* Whether the current process is to have one: not we, and not kernel threads. */
static __always_inline bool @_wanted(u64 task, u32 tgid)
{
    return !is_self(tgid) && !(FIELD(u32, task, TASK_FLAGS) & PF_KTHREAD) && !is_family(FIELD(u32, FIELD(u64, task, TASK_REAL_PARENT), TASK_TGID));
}

/* When it was opened is written last: from then on the node takes it to be complete. */
static __always_inline void @_open(u64 task, struct @ *account)
{
    fill_head((struct head *)account, PROBE_$, task, origin_of_current(task), 0, 0);
    account->cwd_key = cwd_key(task);
    asm volatile("" ::: "memory");
    account->enter_ns = bpf_ktime_get_ns();
}

/* Say anew who the current process is; once in an interval is often enough, and when it has become another program. */
static __always_inline void @_name(u64 task, struct @ *account)
{
    fill_who((struct head *)account, task);
    account->cwd_key = cwd_key(task);
}

/*
 * The account of the current process, which nobody else is to have; 0 for those that have none, when there is no room, and before counting begins. `open`: it is made if there is
 * none. After a process has been told, its threads still run for a while, and do not open another that would never be settled.
 */
static __always_inline struct @ *@_account(u64 task, bool open)
{
    u32 tgid = FIELD(u32, task, TASK_TGID), probe = PROBE_$;
    u64 owner = FIELD(u64, task, TASK_SIGNAL), *since = counting_since.lookup(&probe);
    if (!since || !*since)
        return 0;
    struct @ *account = @_placed(owner, tgid);
    if (!account) { /* whoever has a place was wanted */
        if (!@_wanted(task, tgid))
            return 0;
        account = open ? @_take(owner, tgid) : @_find(owner, tgid);
    }
    if (!account) {
        if (open)
            lose(PROBE_$, LOST_ACCOUNTS_FULL);
        return 0;
    }
    u32 *interval = intervals.lookup(&probe);
    if (interval && (account->interval != *interval || account->exec_id != FIELD(u32, task, TASK_SELF_EXEC_ID))) {
        account->interval = *interval;
        if (account->enter_ns)
            @_name(task, account);
        else
            @_open(task, account);
    }
    return account;
}

/* The ring has no room: the account goes to a map, from which the node takes it as it does from the ring. It is counted first, so that it is looked for. */
static __always_inline void @_put_aside(u64 owner, struct @_place *place)
{
    u32 probe = PROBE_$;
    u64 *count = put_aside.lookup(&probe);
    struct ended key = {.owner = owner, .enter_ns = place->value.enter_ns};
    if (!count)
        return;
    place->value.enter_ns = 0; /* it is in the key */
    __sync_fetch_and_add(count, 1);
    if (@_ended.insert(&key, place)) {
        __sync_fetch_and_add(count, -1);
        lose(PROBE_$, LOST_RING_FULL);
    }
}

/* An account has come to its end, and is told. From where it was the node is not to read it any more once it can be read as told. */
static __always_inline void @_tell(u64 owner, struct @_place *place)
{
    struct @ *record = @_ring.ringbuf_reserve($_RECORD_BYTES);
    place->value.latency_ns = bpf_ktime_get_ns() - place->value.enter_ns;
    if (!record) {
        @_put_aside(owner, place);
        return;
    }
    bpf_probe_read_kernel(record, sizeof(*record), &place->value);
    record->probe = PROBE_$;
    place->value.enter_ns = 0;
    @_ring.ringbuf_submit(record, @_wakeup());
}

/* The current process ends, and is who it is now: in a race of threads for a place, two accounts can have come to be. */
static __always_inline void @_named(u64 task)
{
    u64 owner = FIELD(u64, task, TASK_SIGNAL);
    u32 place = FIELD(u32, task, TASK_TGID) & ($_PLACES - 1);
    struct @_place *placed = @_places.lookup(&place), *displaced = @_displaced.lookup(&owner);
    if (placed && placed->owner == owner && placed->value.enter_ns)
        @_name(task, &placed->value);
    if (displaced && displaced->value.enter_ns)
        @_name(task, &displaced->value);
}

/* It has ended: all that it has is told and given up. */
static __always_inline void @_settle(u64 task)
{
    u64 owner = FIELD(u64, task, TASK_SIGNAL);
    u32 tgid = FIELD(u32, task, TASK_TGID), place = tgid & ($_PLACES - 1);
    struct @_place *placed = @_places.lookup(&place), *displaced = @_displaced.lookup(&owner);
    if (placed && placed->owner == owner && placed->value.enter_ns)
        @_tell(owner, placed);
    if (displaced && displaced->value.enter_ns)
        @_tell(owner, displaced);
    @_leave(owner, tgid);
}
