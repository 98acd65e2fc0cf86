/* init_module, finit_module, delete_module */

static __always_inline void module_exit(void *ctx, struct call *call, s64 ret, u32 which, s32 fd, u64 length, u32 flags, u64 name, u64 parameters)
{
    struct module *event = module_begin(call, ret);
    if (!event)
        return;
    event->length = length;
    event->call = which;
    event->fd = fd;
    event->flags = flags;
    module_submit(ctx, name, parameters, fd < 0 ? (struct place){} : place_of_file(file_of_fd(current_task(), fd)));
}

EXIT(module, init_module) { module_exit(ctx, call, ret, 0, -1, ARG(1), 0, 0, ARG(2)); }
EXIT(module, finit_module) { module_exit(ctx, call, ret, 1, ARG(0), 0, ARG(2), 0, ARG(1)); }
EXIT(module, delete_module) { module_exit(ctx, call, ret, 2, -1, 0, ARG(1), ARG(0), 0); }
