/* process_vm_readv, process_vm_writev */

static __always_inline void process_vm_exit(void *ctx, struct call *call, s64 ret, u32 action)
{
    struct process_vm *event = process_vm_begin(call, ret);
    if (!event)
        return;
    event->action = action;
    event->target_pid = ARG(0);
    event->local_count = ARG(2);
    event->remote_count = ARG(4);
    event->flags = ARG(5);
    process_vm_submit(ctx);
}

EXIT(process_vm, process_vm_readv) { process_vm_exit(ctx, call, ret, 0); }
EXIT(process_vm, process_vm_writev) { process_vm_exit(ctx, call, ret, 1); }
