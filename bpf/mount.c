/* mount, move_mount */

static __always_inline int mount_exit(s64 ret, u64 fstype)
{
    struct call *call = call_exit();
    struct mount *record = mount_begin(call, ret);
    if (record) {
        record->flags = call->args[3];
        mount_submit_strings(record, call->args[0], call->args[1], fstype);
    }
    return call_done(call);
}

ENTER(mount, mount) { return call_enter(PROBE_MOUNT, ARG(0), ARG(1), ARG(2), ARG(3)); }
ENTER(mount, move_mount) { return call_enter(PROBE_MOUNT, ARG(1), ARG(3), 0, ARG(4)); }

EXIT(mount, mount) { return mount_exit(ret, call_argument(2)); }
EXIT(mount, move_mount) { return mount_exit(ret, 0); }
