/* ptrace */

ENTER(ptrace, ptrace) { return call_enter(PROBE_PTRACE, ARG(0), ARG(1), ARG(2), ARG(3)); }

EXIT(ptrace, ptrace)
{
    struct call *call = call_exit();
    struct ptrace *record = ptrace_begin(call, ret);
    if (record) {
        record->request = call->args[0];
        record->target_pid = call->args[1];
        record->addr = call->args[2];
        record->data = call->args[3];
        ptrace_submit(record);
    }
    return call_done(call);
}
