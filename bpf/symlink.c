/* symlink, symlinkat */

static __always_inline void symlink_exit(void *ctx, struct call *call, s64 ret, u64 target, struct path path)
{
    struct symlink *event = symlink_begin(call, ret);
    if (event)
        symlink_submit(ctx, target, path);
}

EXIT(symlink, symlink) { symlink_exit(ctx, call, ret, ARG(0), PATH_AT(AT_FDCWD, ARG(1))); }
EXIT(symlink, symlinkat) { symlink_exit(ctx, call, ret, ARG(0), PATH_AT(ARG(1), ARG(2))); }
