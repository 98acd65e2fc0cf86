/* unshare */

EXIT(unshare, unshare)
{
    struct unshare *event = unshare_begin(call, ret);
    if (!event)
        return;
    event->flags = ARG(0);
    unshare_submit(ctx);
}
