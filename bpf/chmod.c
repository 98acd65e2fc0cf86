/* chmod, fchmod, fchmodat, fchmodat2 */

static __always_inline int chmod_exit(s64 ret, s32 dirfd, s32 fd, u32 flags)
{
    struct call *call = call_exit();
    struct chmod *record = chmod_begin(call, ret);
    if (record) {
        record->mode = call->args[1];
        record->dirfd = dirfd;
        record->fd = fd;
        record->flags = flags;
        chmod_submit_strings(record, call->args[0]);
    }
    return call_done(call);
}

ENTER(chmod, chmod) { return call_enter(PROBE_CHMOD, ARG(0), ARG(1), 0, 0); }
ENTER(chmod, fchmod) { return call_enter(PROBE_CHMOD, 0, ARG(1), ARG(0), 0); }
ENTER(chmod, fchmodat) { return call_enter(PROBE_CHMOD, ARG(1), ARG(2), ARG(0), 0); }
ENTER(chmod, fchmodat2) { return call_enter(PROBE_CHMOD, ARG(1), ARG(2), ARG(0), ARG(3)); }

EXIT(chmod, chmod) { return chmod_exit(ret, AT_FDCWD, -1, 0); }
EXIT(chmod, fchmod) { return chmod_exit(ret, AT_FDCWD, call_argument(2), 0); }
EXIT(chmod, fchmodat) { return chmod_exit(ret, call_argument(2), -1, 0); }
EXIT(chmod, fchmodat2) { return chmod_exit(ret, call_argument(2), -1, call_argument(3)); }
