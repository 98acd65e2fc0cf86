/* unlink, unlinkat, rmdir */

static __always_inline void unlink_exit(void *ctx, struct call *call, s64 ret, struct path path, u32 directory)
{
    struct unlink *event = unlink_begin(call, ret);
    if (!event)
        return;
    event->directory = directory;
    unlink_submit(ctx, path);
}

EXIT(unlink, unlink) { unlink_exit(ctx, call, ret, PATH_AT(AT_FDCWD, ARG(0)), 0); }
EXIT(unlink, rmdir) { unlink_exit(ctx, call, ret, PATH_AT(AT_FDCWD, ARG(0)), 1); }
EXIT(unlink, unlinkat) { unlink_exit(ctx, call, ret, PATH_AT(ARG(0), ARG(1)), !!(ARG(2) & AT_REMOVEDIR)); }
