/* mmap: of memory that can be executed, and of what file it is. */

EXIT(mmap, mmap)
{
    u64 task = current_task();
    if (!passes_protection(PROBE_MMAP, task, ARG(2)))
        return;
    struct mmap *event = mmap_begin(call, ret);
    if (!event)
        return;
    event->addr = ARG(0);
    event->length = ARG(1);
    event->prot = ARG(2);
    event->flags = ARG(3);
    event->fd = ARG(4);
    event->offset = ARG(5);
    mmap_submit(ctx, ARG(3) & MAP_ANONYMOUS ? (struct place){} : place_of_file(file_of_fd(task, ARG(4))));
}
