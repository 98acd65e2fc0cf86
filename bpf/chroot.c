/* chroot, pivot_root. Both have changed, by their exit, what an absolute path starts from. */

enum { CHROOT, PIVOT_ROOT };

static __always_inline void chroot_exit(void *ctx, struct call *call, s64 ret, u32 which, struct path path, u64 put_old)
{
    struct chroot *event = chroot_begin(call, ret);
    if (!event)
        return;
    event->call = which;
    chroot_submit(ctx, path, PATH_AT(AT_FDCWD, put_old));
}

EXIT(chroot, chroot) { chroot_exit(ctx, call, ret, CHROOT, PATH(ARG(0), AT_FDCWD, ret ? NO_FD : FD_ROOT), 0); }
EXIT(chroot, pivot_root) { chroot_exit(ctx, call, ret, PIVOT_ROOT, PATH_AT(AT_FDCWD, ARG(0)), ARG(1)); }
