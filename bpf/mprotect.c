/* mprotect, pkey_mprotect: memory that becomes executable. */

static __always_inline void mprotect_exit(void *ctx, struct call *call, s64 ret, s32 pkey)
{
    if (!passes_protection(PROBE_MPROTECT, current_task(), ARG(2)))
        return;
    struct mprotect *event = mprotect_begin(call, ret);
    if (!event)
        return;
    event->addr = ARG(0);
    event->length = ARG(1);
    event->prot = ARG(2);
    event->pkey = pkey;
    mprotect_submit(ctx);
}

EXIT(mprotect, mprotect) { mprotect_exit(ctx, call, ret, -1); }
EXIT(mprotect, pkey_mprotect) { mprotect_exit(ctx, call, ret, ARG(3)); }
