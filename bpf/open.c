/* open, openat, openat2, creat: flags, mode and return code, the path as the caller gave it. */

/* struct open_how, include/uapi/linux/openat2.h */
struct how {
    u64 flags;
    u64 mode;
};

static __always_inline int open_exit(s64 ret)
{
    struct call *call = call_exit();
    struct open *record = open_begin(call, ret);
    if (record) {
        record->flags = call->args[1];
        record->mode = call->args[2];
        record->dirfd = call->args[3];
        open_submit_strings(record, call->args[0]);
    }
    return call_done(call);
}

ENTER(open, open) { return call_enter(PROBE_OPEN, ARG(0), ARG(1), ARG(2), AT_FDCWD); }
ENTER(open, openat) { return call_enter(PROBE_OPEN, ARG(1), ARG(2), ARG(3), ARG(0)); }
ENTER(open, openat2) { return call_enter(PROBE_OPEN, ARG(1), ARG(2), 0, ARG(0)); }
ENTER(open, creat) { return call_enter(PROBE_OPEN, ARG(0), O_CREAT | O_WRONLY | O_TRUNC, ARG(1), AT_FDCWD); }

EXIT(open, open) { return open_exit(ret); }
EXIT(open, openat) { return open_exit(ret); }

/* Like the path, it is in memory for certain only after the call has read it. */
EXIT(open, openat2)
{
    struct call *call = call_exit();
    struct how how = {};
    if (!call)
        return 0;
    bpf_probe_read_user(&how, sizeof(how), (void *)call->args[1]);
    call->args[1] = how.flags;
    call->args[2] = how.mode;
    return open_exit(ret);
}

EXIT(open, creat) { return open_exit(ret); }
