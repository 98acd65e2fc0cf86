/* rename, renameat, renameat2 */

static __always_inline void rename_exit(void *ctx, struct call *call, s64 ret, struct path from, struct path to, u32 flags)
{
    struct rename *event = rename_begin(call, ret);
    if (!event)
        return;
    event->flags = flags;
    rename_submit(ctx, from, to);
}

EXIT(rename, rename) { rename_exit(ctx, call, ret, PATH_AT(AT_FDCWD, ARG(0)), PATH_AT(AT_FDCWD, ARG(1)), 0); }
EXIT(rename, renameat) { rename_exit(ctx, call, ret, PATH_AT(ARG(0), ARG(1)), PATH_AT(ARG(2), ARG(3)), 0); }
EXIT(rename, renameat2) { rename_exit(ctx, call, ret, PATH_AT(ARG(0), ARG(1)), PATH_AT(ARG(2), ARG(3)), ARG(4)); }
