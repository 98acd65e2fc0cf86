/*
 * What a function hangs on. Each names its probe first, so that the loader knows what to attach for whom (infrasight/kernel/source.py). EXIT sees a system
 * call that returns, with all of its arguments; most probes need no more. ENTER sees it begin, for what is gone or changed by the time it returns. The
 * loader writes a program for each call, which the two programs in dispatch.h call by its number.
 */
#define ENTER(probe, name) static __always_inline void enter__##probe##__##name(struct bpf_raw_tracepoint_args *ctx, struct call *call)
#define EXIT(probe, name) static __always_inline void exit__##probe##__##name(struct bpf_raw_tracepoint_args *ctx, struct call *call, s64 ret)
/* Told of every system call that begins, whichever are wanted: by its number for 64-bit programs, CALL_NUMBERS when they have no such call. */
#define EVERY(probe, name) static __always_inline void every__##probe##__##name(u64 task, u32 number)
/* A program of a probe's own that others go on to: `programs.call(ctx, PROGRAM_<PROBE>_<NAME>)` does not come back. */
#define PROGRAM(probe, name) int program__##probe##__##name(struct bpf_raw_tracepoint_args *ctx)
#define RAW(probe, event) int raw__##probe##__##event(struct bpf_raw_tracepoint_args *ctx)
/* Once a second on each processor that is not idle. */
#define TICK(probe, name) int tick__##probe##__##name(void *ctx)

/* An argument of the system call. */
#define ARG(n) (call->args[n])

#ifdef TYPED_CURRENT_TASK
static u64 (*task_pt_regs)(u64 task) = (void *)175; /* BPF_FUNC_task_pt_regs */
#define REGS(ctx) task_pt_regs(current_task())
#else
#define REGS(ctx) (ctx)->args[0]
#endif
