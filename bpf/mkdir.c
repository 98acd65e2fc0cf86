/* mkdir, mkdirat */

static __always_inline void mkdir_exit(void *ctx, struct call *call, s64 ret, struct path path, u32 mode)
{
    struct mkdir *event = mkdir_begin(call, ret);
    if (!event)
        return;
    event->mode = mode;
    mkdir_submit(ctx, path);
}

EXIT(mkdir, mkdir) { mkdir_exit(ctx, call, ret, PATH_AT(AT_FDCWD, ARG(0)), ARG(1)); }
EXIT(mkdir, mkdirat) { mkdir_exit(ctx, call, ret, PATH_AT(ARG(0), ARG(1)), ARG(2)); }
