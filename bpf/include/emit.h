/* The one way out: counting what is lost, and filling what every record begins with. */

BPF_PERCPU_ARRAY(losses, u64, PROBES *LOSS_REASONS);

static __always_inline void lose(u32 probe, u32 reason)
{
    u32 index = probe * LOSS_REASONS + reason;
    u64 *count = losses.lookup(&index);
    if (count)
        *count += 1;
}

/* Not 0 while the node waits for anything to happen, as it does when nothing has for a while; it is told of the first record then. */
BPF_ARRAY(awaited, u64, 1);

static __always_inline bool is_awaited(void)
{
    u32 zero = 0;
    u64 *waits = awaited.lookup(&zero);
    if (!waits || !*waits)
        return false;
    *waits = 0;
    return true;
}

/* InfraSight does not watch itself: neither the node and what it starts, nor, under `infrasight up`, its supervisor and the supervisor's direct children. */
struct selves {
    u32 node;
    u32 family; /* 0: nobody */
};
BPF_ARRAY(selves, struct selves, 1);

static __always_inline bool is_self(u32 tgid)
{
    u32 zero = 0;
    struct selves *ours = selves.lookup(&zero);
    return ours && (tgid == ours->node || tgid == ours->family);
}

static __always_inline bool is_family(u32 ppid)
{
    u32 zero = 0;
    struct selves *ours = selves.lookup(&zero);
    return ours && (ppid == ours->node || (ours->family && ppid == ours->family));
}

/* A terminal by its device number, as struct dev_t has it inside the kernel; 0 for none. */
static __always_inline u32 terminal(u64 task)
{
    u64 tty = FIELD(u64, FIELD(u64, task, TASK_SIGNAL), SIGNAL_TTY);
    if (!tty)
        return 0;
    u64 driver = FIELD(u64, tty, TTY_DRIVER);
    return FIELD(u32, driver, TTY_DRIVER_MAJOR) << 20 | (FIELD(u32, driver, TTY_DRIVER_MINOR_START) + FIELD(u32, tty, TTY_INDEX));
}

/*
 * Which cgroup a task is in: that of the v2 hierarchy or, where it is in the root of that, as everything is on a host without v2, of the pids controller's
 * own. Hierarchies number their cgroups each for itself, so the number of a v1 hierarchy is in the upper bits. `LOAD` is FIELD for the current task.
 */
#define CGROUP_ROOT_ID 1
#define CGROUP_HIERARCHY_SHIFT 48
#define CGROUP_ID(LOAD, cgroup) LOAD(u64, LOAD(u64, cgroup, CGROUP_KN), KERNFS_NODE_ID)
#define CGROUP_HIERARCHY(LOAD, cgroup) ((u64)LOAD(u32, LOAD(u64, cgroup, CGROUP_ROOT), CGROUP_ROOT_HIERARCHY))
#ifdef CSS_SET_PIDS
#define CGROUP_OF(LOAD, task)                                                                      \
    ({                                                                                             \
        u64 _set = LOAD(u64, task, TASK_CGROUPS);                                                  \
        u64 _id = CGROUP_ID(LOAD, LOAD(u64, _set, CSS_SET_DFL_CGRP));                              \
        if (_id == CGROUP_ROOT_ID) {                                                               \
            u64 _cgroup = LOAD(u64, LOAD(u64, _set, CSS_SET_PIDS), CSS_CGROUP);                    \
            u64 _other = CGROUP_ID(LOAD, _cgroup);                                                 \
            if (_other != CGROUP_ROOT_ID)                                                          \
                _id = CGROUP_HIERARCHY(LOAD, _cgroup) << CGROUP_HIERARCHY_SHIFT | _other;          \
        }                                                                                          \
        _id;                                                                                       \
    })
#else
#define CGROUP_OF(LOAD, task) CGROUP_ID(LOAD, LOAD(u64, LOAD(u64, task, TASK_CGROUPS), CSS_SET_DFL_CGRP))
#endif

static __always_inline u64 cgroup_of(u64 task) { return CGROUP_OF(FIELD, task); }

/*
 * The working directory as one number: mount, directory entry, its name and inode, since an address may come to be another directory's. The verifier does
 * not count with typed pointers, so they go through a map, after which they are numbers.
 */
struct addresses {
    u64 mount;
    u64 dentry;
};
BPF_PERCPU_ARRAY(cwd_addresses, struct addresses, 1);

static __always_inline u64 cwd_key(u64 task)
{
    u32 zero = 0;
    volatile struct addresses *addresses = cwd_addresses.lookup(&zero);
    u64 fs = FIELD(u64, task, TASK_FS);
    if (!fs || !addresses)
        return 0;
    u64 dentry = FIELD(u64, fs, FS_PWD + PATH_DENTRY);
    addresses->mount = FIELD(u64, fs, FS_PWD + PATH_MNT);
    addresses->dentry = dentry;
    u64 key = (addresses->mount ^ FIELD(u64, dentry, DENTRY_NAME)) * 0x9e3779b97f4a7c15ULL;
    key = (key ^ key >> 32 ^ addresses->dentry) * 0xbf58476d1ce4e5b9ULL;
    return key ^ key >> 32 ^ FIELD(u64, FIELD(u64, dentry, DENTRY_INODE), INODE_INO);
}

/* Who the current task is; plain loads where the helpers that tell the same take 10 to 40 ns each. */
static __always_inline void fill_who(struct head *head, u64 task)
{
    u64 cred = FIELD(u64, task, TASK_CRED);
    head->pid = FIELD(u32, task, TASK_TGID);
    head->tid = FIELD(u32, task, TASK_PID);
    head->uid = FIELD(u32, cred, CRED_UID);
    head->gid = FIELD(u32, cred, CRED_GID);
    head->euid = FIELD(u32, cred, CRED_EUID);
    head->cap_effective = FIELD(u64, cred, CRED_CAP_EFFECTIVE);
    head->cgroup_id = cgroup_of(task);
    head->exec_id = FIELD(u32, task, TASK_SELF_EXEC_ID);
#ifdef TASK_LOGINUID
    head->login_uid = FIELD(u32, task, TASK_LOGINUID);
    head->session_id = FIELD(u32, task, TASK_SESSIONID);
#else
    head->login_uid = head->session_id = -1;
#endif
    head->tty = terminal(task);
    ((u64 *)head->comm)[0] = FIELD(u64, task, TASK_COMM);
    ((u64 *)head->comm)[1] = FIELD(u64, task, TASK_COMM + 8);
}

/* What every record begins with; who knows what the working directory is says so too. */
static __always_inline void fill_head(struct head *head, u32 probe, u64 task, struct origin origin, u64 enter_ns, s64 ret)
{
    head->enter_ns = enter_ns;
    head->latency_ns = bpf_ktime_get_ns() - enter_ns;
    head->ret = ret;
    head->start_ns = origin.start_ns;
    head->ppid = origin.ppid;
    head->ns_pid = origin.ns_pid;
    head->probe = probe;
    head->cwd_key = 0;
    fill_who(head, task);
}
