/* open, openat, openat2, creat, open_by_handle_at: flags, mode and return code, the path as the caller gave it and where it led. */

/* struct open_how, include/uapi/linux/openat2.h */
struct how {
    u64 flags;
    u64 mode;
    u64 resolve;
};
#define RESOLVE_IN_ROOT 0x10

/* `failed`: what the path led to when it led to no file. */
static __always_inline void open_exit(void *ctx, struct call *call, s64 ret, s32 dirfd, u64 path, u32 flags, u32 mode, s32 failed)
{
    struct open *event = open_begin(call, ret);
    if (!event)
        return;
    event->flags = flags;
    event->mode = mode;
    event->dirfd = dirfd;
    open_submit(ctx, PATH(path, dirfd, ret < 0 ? failed : ret));
}

EXIT(open, open) { open_exit(ctx, call, ret, AT_FDCWD, ARG(0), ARG(1), ARG(2), NO_FD); }
EXIT(open, openat) { open_exit(ctx, call, ret, ARG(0), ARG(1), ARG(2), ARG(3), NO_FD); }

/* Like the path, `how` is in memory for certain only after the call has read it. */
EXIT(open, openat2)
{
    struct how how = {};
    bpf_probe_read_user(&how, sizeof(how), (void *)ARG(2));
    open_exit(ctx, call, ret, ARG(0), ARG(1), how.flags, how.mode, how.resolve & RESOLVE_IN_ROOT ? FD_CONFINED : NO_FD);
}

EXIT(open, creat) { open_exit(ctx, call, ret, AT_FDCWD, ARG(0), O_CREAT | O_WRONLY | O_TRUNC, ARG(1), NO_FD); }

/* By a handle there is no path, only a file system to look in. */
EXIT(open, open_by_handle_at) { open_exit(ctx, call, ret, ARG(0), 0, ARG(2), 0, NO_FD); }
