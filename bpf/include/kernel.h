/* Reading the kernel's own structures. Their offsets come from BTF at load time as constants (infrasight/kernel/offsets.py). */

/* From any address. */
#define READ(type, base, offset)                                                                   \
    ({                                                                                             \
        type _value = 0;                                                                           \
        bpf_probe_read_kernel(&_value, sizeof(_value), (const char *)(base) + (offset));           \
        _value;                                                                                    \
    })

/*
 * From the current task and what it points to, whose types the verifier knows: a plain load, where READ costs a call of 35 ns. Kernels before 5.11
 * have no typed current task.
 */
#ifdef TYPED_CURRENT_TASK
static u64 (*current_task)(void) = (void *)158; /* BPF_FUNC_get_current_task_btf */
#define FIELD(type, base, offset) (*(type *)((base) + (offset)))
#else
#define current_task bpf_get_current_task
#define FIELD READ
#endif

/*
 * Whether the thread of a sched_process_exit is the last of its group. Its arguments are the task and, since Linux 6.16, just that. Before, the count of
 * live threads tells, for two racing threads both.
 */
static __always_inline bool is_last_thread(struct bpf_raw_tracepoint_args *ctx)
{
#ifdef EXIT_TELLS_GROUP_DEAD
    return (u8)ctx->args[1];
#else
    return !READ(u32, READ(u64, ctx->args[0], TASK_SIGNAL), SIGNAL_LIVE);
#endif
}

/* Cap an unsigned length. The verifier forgets a comparison that the compiler made on a copy, so both are kept on the one variable. */
#define BOUND(length, most)                                                                        \
    do {                                                                                           \
        asm volatile("" : "+r"(length));                                                           \
        if (length > (most))                                                                       \
            length = (most);                                                                       \
        asm volatile("" : "+r"(length));                                                           \
    } while (0)

/* Where the first zero byte of a word lies, counted from 1; 0 when there is none. */
static __always_inline u64 zero_byte(u64 word)
{
    u64 zeros = (word - 0x0101010101010101) & ~word & 0x8080808080808080;
    u64 below = ((zeros & -zeros) - 1) & 0x0101010101010101;
    return zeros ? below * 0x0101010101010101 >> 56 : 0;
}

/*
 * A string of user memory into `to`, which has room for 64 bytes at least; its length with the NUL, `size` when it was cut, negative when it cannot be
 * read. Most strings are short: reading 64 bytes and looking for their end takes a third of the time of the helper for strings. What is read behind the
 * end is of no meaning, and left out by whoever reads the record.
 */
static __always_inline long user_string(u8 *to, u32 size, u64 from)
{
    if (!bpf_probe_read_user(to, 64, (void *)from)) {
#pragma unroll
        for (u32 word = 0; word < 8; word++) {
            u64 end = zero_byte(((u64 *)to)[word]);
            if (end)
                return word * 8 + end;
        }
    }
    return bpf_probe_read_user_str(to, size, (void *)from);
}

/* What tells a process from all others, and where it comes from. */
struct origin {
    u64 start_ns;
    u32 ppid;
    u32 ns_pid;
};

/* The id of a process inside its own, innermost pid namespace: struct pid keeps one number for each level. */
static __always_inline u32 ns_pid_at(u64 pid, u64 level) { return READ(u32, pid, PID_NUMBERS + level * UPID_SIZE + UPID_NR); }

static __always_inline struct origin origin_of_current(u64 task)
{
    u64 leader = FIELD(u64, task, TASK_GROUP_LEADER), parent = FIELD(u64, task, TASK_REAL_PARENT);
    u64 pid = FIELD(u64, leader, TASK_THREAD_PID);
    u32 level = FIELD(u32, pid, PID_LEVEL);
    return (struct origin){
        .start_ns = FIELD(u64, leader, TASK_START_BOOTTIME),
        .ppid = FIELD(u32, parent, TASK_TGID),
        .ns_pid = level ? ns_pid_at(pid, level) : FIELD(u32, leader, TASK_PID),
    };
}

static __always_inline struct origin origin_of(u64 task)
{
    u64 leader = READ(u64, task, TASK_GROUP_LEADER), parent = READ(u64, task, TASK_REAL_PARENT);
    u64 pid = READ(u64, leader, TASK_THREAD_PID);
    return (struct origin){
        .start_ns = READ(u64, leader, TASK_START_BOOTTIME),
        .ppid = READ(u32, parent, TASK_TGID),
        .ns_pid = ns_pid_at(pid, READ(u32, pid, PID_LEVEL)),
    };
}
