/* userfaultfd */

EXIT(userfaultfd, userfaultfd)
{
    struct userfaultfd *event = userfaultfd_begin(call, ret);
    if (!event)
        return;
    event->flags = ARG(0);
    userfaultfd_submit(ctx);
}
