/* memfd_create */

EXIT(memfd_create, memfd_create)
{
    struct memfd_create *event = memfd_create_begin(call, ret);
    if (!event)
        return;
    event->flags = ARG(1);
    memfd_create_submit(ctx, ARG(0));
}
