/* ptrace */

EXIT(ptrace, ptrace)
{
    struct ptrace *event = ptrace_begin(call, ret);
    if (!event)
        return;
    event->request = ARG(0);
    event->target_pid = ARG(1);
    event->addr = ARG(2);
    event->data = ARG(3);
    ptrace_submit(ctx);
}
