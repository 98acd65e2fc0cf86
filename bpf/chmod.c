/* chmod, fchmod, fchmodat, fchmodat2 */

static __always_inline void chmod_exit(void *ctx, struct call *call, s64 ret, struct path path, s32 fd, u32 mode, u32 flags)
{
    struct chmod *event = chmod_begin(call, ret);
    if (!event)
        return;
    event->mode = mode;
    event->dirfd = path.dirfd;
    event->fd = fd;
    event->flags = flags;
    chmod_submit(ctx, path);
}

EXIT(chmod, chmod) { chmod_exit(ctx, call, ret, PATH_AT(AT_FDCWD, ARG(0)), -1, ARG(1), 0); }
EXIT(chmod, fchmod) { chmod_exit(ctx, call, ret, PATH(0, AT_FDCWD, (s32)ARG(0) < 0 ? NO_FD : (s32)ARG(0)), ARG(0), ARG(1), 0); }
EXIT(chmod, fchmodat) { chmod_exit(ctx, call, ret, PATH_AT(ARG(0), ARG(1)), -1, ARG(2), 0); }
EXIT(chmod, fchmodat2) { chmod_exit(ctx, call, ret, PATH_OR_START(ARG(0), ARG(1), ARG(3)), -1, ARG(2), ARG(3)); }
