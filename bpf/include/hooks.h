/*
 * What a function hangs on. Each names its probe first, so that the loader knows what to attach for whom (infrasight/kernel/source.py). The functions for
 * system calls are called by two programs that the loader writes, one on entry and one on exit of every call of the machine, which tell calls apart by
 * their number: a tracepoint for each call would cost a traced call 120 ns more, and not see calls at all that 32-bit programs make.
 */
#define ENTER(probe, call) static __always_inline int enter__##probe##__##call(u64 regs)
#define EXIT(probe, call) static __always_inline int exit__##probe##__##call(s64 ret)
#define RAW(probe, event) int raw__##probe##__##event(struct bpf_raw_tracepoint_args *ctx)

/* An argument of the system call, on entry. */
#define ARG(n) FIELD(u64, regs, REGS_ARG##n)

#ifdef TYPED_CURRENT_TASK
static u64 (*task_pt_regs)(u64 task) = (void *)175; /* BPF_FUNC_task_pt_regs */
#define REGS(ctx) task_pt_regs(current_task())
#else
#define REGS(ctx) (ctx)->args[0]
#endif

/* Whether the current task is making a 32-bit call on a 64-bit kernel: its numbers and arguments mean something else. */
static __always_inline bool is_compat(void)
{
    u64 task = current_task();
    return FIELD(u32, task, TASK_COMPAT_WORD) & COMPAT_BIT;
}
