/* The one way out: counting what is lost, and filling what every record begins with. */

BPF_PERCPU_ARRAY(losses, u64, PROBES *LOSS_REASONS);

static __always_inline void lose(u32 probe, u32 reason)
{
    u32 index = probe * LOSS_REASONS + reason;
    u64 *count = losses.lookup(&index);
    if (count)
        *count += 1;
}

/* The consumer looks at the ring on a timer, so a record wakes nobody up: that wake-up is most of what other tracers cost. */
#define QUIETLY BPF_RB_NO_WAKEUP

/* InfraSight does not watch itself: neither the node and what it starts, nor, under `infrasight up`, its supervisor and the supervisor's direct children. */
static __always_inline bool is_self(u32 tgid) { return tgid == SELF_TGID || tgid == FAMILY_TGID; }
static __always_inline bool is_family(u32 ppid) { return ppid == SELF_TGID || (FAMILY_TGID && ppid == FAMILY_TGID); }

/* Who the current task is; plain loads where the helpers that tell the same take 10 to 40 ns each. */
static __always_inline void fill_who(struct head *head, u64 task)
{
#ifdef TYPED_CURRENT_TASK
    u64 cred = FIELD(u64, task, TASK_CRED);
    head->pid = FIELD(u32, task, TASK_TGID);
    head->tid = FIELD(u32, task, TASK_PID);
    head->uid = FIELD(u32, cred, CRED_UID);
    head->gid = FIELD(u32, cred, CRED_GID);
    head->cgroup_id = FIELD(u64, FIELD(u64, FIELD(u64, FIELD(u64, task, TASK_CGROUPS), CSS_SET_DFL_CGRP), CGROUP_KN), KERNFS_NODE_ID);
    ((u64 *)head->comm)[0] = FIELD(u64, task, TASK_COMM);
    ((u64 *)head->comm)[1] = FIELD(u64, task, TASK_COMM + 8);
#else
    u64 id = bpf_get_current_pid_tgid(), owner = bpf_get_current_uid_gid();
    head->pid = id >> 32;
    head->tid = (u32)id;
    head->uid = (u32)owner;
    head->gid = owner >> 32;
    head->cgroup_id = bpf_get_current_cgroup_id();
    bpf_get_current_comm(head->comm, sizeof(head->comm));
#endif
}

/* What every record begins with. */
static __always_inline void fill_head(struct head *head, u64 task, struct origin origin, u64 enter_ns, s64 ret)
{
    head->enter_ns = enter_ns;
    head->latency_ns = bpf_ktime_get_ns() - enter_ns;
    head->ret = ret;
    head->start_ns = origin.start_ns;
    head->ppid = origin.ppid;
    head->ns_pid = origin.ns_pid;
    fill_who(head, task);
}
