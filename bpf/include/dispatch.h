/*
 * The two programs that see every system call of the machine, and pass on the few that a probe wants. A tracepoint for each call would cost a traced call
 * 120 ns more and never see the calls of 32-bit programs. Which calls are wanted is data (`interests`), so that probes come and go while others run.
 */

#define WANTED 1        /* bits of an interest */
#define HAS_ENTER 2     /* there is a program for the entry too */
#define INTEREST_PROBE 8 /* shift: the probe that is told when the call cannot be followed */

BPF_ARRAY(interests, u32, CALL_NUMBERS);
BPF_PROG_ARRAY(enter_programs, CALL_NUMBERS);
BPF_PROG_ARRAY(exit_programs, CALL_NUMBERS);

#ifdef COMPAT_CALLS
/* Numbers of 32-bit calls -> those of 64-bit programs, plus one; 0 for calls that those lack. Of calls that pass their arguments in memory see below. */
BPF_ARRAY(compat_numbers, u32, CALL_NUMBERS);

/* Whether the current task is making a 32-bit call on a 64-bit kernel: its numbers and registers mean something else. */
static __always_inline bool is_compat(u64 task) { return FIELD(u32, task, TASK_COMPAT_WORD) & COMPAT_BIT; }

/* Arguments that lie in memory as 32-bit words. */
static __always_inline void compat_arguments_at(struct call *call, u64 at)
{
    u32 words[6] = {};
    bpf_probe_read_user(words, sizeof(words), (void *)at);
#pragma unroll
    for (u32 i = 0; i < 6; i++)
        call->args[i] = words[i];
}

/* The 64-bit number of a 32-bit call; CALL_NUMBERS when nobody wants it. */
static __always_inline u32 compat_number(u32 number, u64 regs)
{
    if (number == COMPAT_SOCKETCALL)
        number = COMPAT_SOCKETCALLS + (FIELD(u32, regs, COMPAT_ARG0) & 31);
    u32 *native = compat_numbers.lookup(&number);
    return native && *native ? *native - 1 : CALL_NUMBERS;
}

/*
 * x32: calls of 64-bit programs whose pointers have 4 bytes, told by a bit of the number. Those that would find something else in memory have numbers of
 * their own. Kernels that do not know them (most) refuse them all.
 */
#define X32_BIT 0x40000000
#define X32_OWN_FIRST 512
BPF_ARRAY(x32_numbers, u32, X32_OWN_NUMBERS);

static __always_inline bool is_x32_own(u32 number) { return number & X32_BIT && (number & ~X32_BIT) >= X32_OWN_FIRST; }

static __always_inline u32 x32_number(u32 number)
{
    if (!is_x32_own(number))
        return number & ~X32_BIT;
    number -= X32_BIT + X32_OWN_FIRST;
    u32 *native = x32_numbers.lookup(&number);
    return native && *native ? *native - 1 : CALL_NUMBERS;
}

static __always_inline bool compat_short_ids(u32 number)
{
    u64 calls = number < 64 ? COMPAT_SHORT_IDS_0 : number < 128 ? COMPAT_SHORT_IDS_1 : number < 192 ? COMPAT_SHORT_IDS_2 : 0;
    return calls >> (number & 63) & 1;
}

/* The calls take no more of their arguments than 16 bits; all ones are none. */
static __always_inline void compat_lengthen_ids(struct call *call)
{
#pragma unroll
    for (u32 i = 0; i < 3; i++) {
        u16 id = call->args[i];
        call->args[i] = id == 0xffff ? (u32)-1 : id;
    }
}

static __always_inline void compat_arguments(struct call *call, u32 number, u64 regs)
{
    call->args[0] = FIELD(u32, regs, COMPAT_ARG0);
    call->args[1] = FIELD(u32, regs, COMPAT_ARG1);
    call->args[2] = FIELD(u32, regs, COMPAT_ARG2);
    call->args[3] = FIELD(u32, regs, COMPAT_ARG3);
    call->args[4] = FIELD(u32, regs, COMPAT_ARG4);
    call->args[5] = FIELD(u32, regs, COMPAT_ARG5);
    if (number == COMPAT_SOCKETCALL)
        compat_arguments_at(call, call->args[1]);
    else if (number == COMPAT_OLD_MMAP)
        compat_arguments_at(call, call->args[0]);
    else if (number == COMPAT_MMAP2)
        call->args[5] <<= 12; /* in units of 4096 bytes on every machine */
    else if (number == COMPAT_UMOUNT)
        call->args[1] = 0;
    else if (compat_short_ids(number))
        compat_lengthen_ids(call);
}
#endif

static __always_inline void native_arguments(struct call *call, u64 regs)
{
    call->args[0] = FIELD(u64, regs, REGS_ARG0);
    call->args[1] = FIELD(u64, regs, REGS_ARG1);
    call->args[2] = FIELD(u64, regs, REGS_ARG2);
    call->args[3] = FIELD(u64, regs, REGS_ARG3);
    call->args[4] = FIELD(u64, regs, REGS_ARG4);
    call->args[5] = FIELD(u64, regs, REGS_ARG5);
}

/* The number that 64-bit programs have for a call that is `number` for the current task; CALL_NUMBERS, or more, when there is none. */
static __always_inline u32 call_number(struct bpf_raw_tracepoint_args *ctx, u32 number, u64 task)
{
#ifdef COMPAT_CALLS
    if (is_compat(task))
        return compat_number(number, REGS(ctx));
    if (number & X32_BIT)
        return x32_number(number);
#endif
    return number;
}

/* Its arguments, as a 64-bit program would have them. */
static __always_inline void call_arguments(struct call *call, u32 number, u64 task, u64 regs)
{
#ifdef COMPAT_CALLS
    bool compat = is_compat(task);
    call->short_pointers = compat || is_x32_own(number);
    if (compat) {
        compat_arguments(call, number, regs);
        return;
    }
#endif
    native_arguments(call, regs);
}

#ifdef TYPED_CURRENT_TASK
/* The call that the current task is inside of, wanted or not. */
static __always_inline u32 call_under_way(struct bpf_raw_tracepoint_args *ctx, struct call *call, u64 task)
{
    u64 regs = task_pt_regs(task);
    u32 number = FIELD(u32, regs, REGS_NUMBER);
    call_arguments(call, number, task, regs);
    return call_number(ctx, number, task);
}
#endif

/*
 * What the programs on entry do last; the loader writes them, since the probes that are told of every call come first: on_sys_enter, and on_sys_enter_alone,
 * without those, for when the kernel refuses it.
 */
static __always_inline void begin_call(struct bpf_raw_tracepoint_args *ctx, u64 task, u32 number)
{
    u32 *interest = interests.lookup(&number);
    if (!interest || !*interest || is_self(FIELD(u32, task, TASK_TGID)))
        return;
    struct call *call = call_begin(task);
    if (!call) {
        lose(*interest >> INTEREST_PROBE, LOST_INFLIGHT_FULL);
        return;
    }
    call_arguments(call, ctx->args[1], task, REGS(ctx));
    call->number = number;
    call->enter_ns = bpf_ktime_get_ns();
    call->in_flight = 1;
    if (*interest & HAS_ENTER)
        enter_programs.call(ctx, number);
}

/* When calls began to be followed: one that was under way then, or has been since they were followed before, is not what is in its place. */
BPF_ARRAY(followed_since, u64, 1);

/* pt_regs, return code. Which call it is was noted on entry: the register that tells it can be changed by a tracer meanwhile. */
int on_sys_exit(struct bpf_raw_tracepoint_args *ctx)
{
    u32 zero = 0;
    struct call *call = call_current();
    if (!call)
        return 0;
    u64 *since = followed_since.lookup(&zero);
    if (since && call->enter_ns < *since)
        return call_done(call);
    exit_programs.call(ctx, call->number);
    return call_done(call);
}
