/* umount2 */

EXIT(umount, umount2)
{
    struct umount *event = umount_begin(call, ret);
    if (!event)
        return;
    event->flags = ARG(1);
    umount_submit(ctx, PATH_AT(AT_FDCWD, ARG(0)));
}
