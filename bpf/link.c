/* link, linkat */

static __always_inline void link_exit(void *ctx, struct call *call, s64 ret, struct path from, struct path to, u32 flags)
{
    struct link *event = link_begin(call, ret);
    if (!event)
        return;
    event->flags = flags;
    link_submit(ctx, from, to);
}

EXIT(link, link) { link_exit(ctx, call, ret, PATH_AT(AT_FDCWD, ARG(0)), PATH_AT(AT_FDCWD, ARG(1)), 0); }
EXIT(link, linkat) { link_exit(ctx, call, ret, PATH_OR_START(ARG(0), ARG(1), ARG(4)), PATH_AT(ARG(2), ARG(3)), ARG(4)); }
