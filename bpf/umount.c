/* umount2 */

ENTER(umount, umount2) { return call_enter(PROBE_UMOUNT, ARG(0), ARG(1), 0, 0); }

EXIT(umount, umount2)
{
    struct call *call = call_exit();
    struct umount *record = umount_begin(call, ret);
    if (record) {
        record->flags = call->args[1];
        umount_submit_strings(record, call->args[0]);
    }
    return call_done(call);
}
