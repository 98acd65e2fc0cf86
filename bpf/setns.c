/* setns: which namespace, or whose. */

static __always_inline u32 namespace_type(u64 namespace)
{
#ifdef NAMESPACE_TYPE
    return READ(u32, namespace, NAMESPACE_TYPE);
#else
    return READ(u32, READ(u64, namespace, NAMESPACE_OPS), NAMESPACE_OPS_TYPE);
#endif
}

EXIT(setns, setns)
{
    struct setns *event = setns_begin(call, ret);
    if (!event)
        return;
    u64 file = file_of_fd(current_task(), ARG(0)), inode = READ(u64, file, FILE_INODE);
    u64 magic = READ(u64, READ(u64, inode, INODE_SB), SUPER_BLOCK_MAGIC), private = READ(u64, inode, INODE_PRIVATE);
    event->fd = ARG(0);
    event->nstype = ARG(1);
    if (magic == NSFS_MAGIC) {
        event->inode = READ(u64, inode, INODE_INO);
        event->type = namespace_type(private);
    } else if (magic == PIDFS_MAGIC) {
        event->target_pid = ns_pid_at(private, 0);
    }
    setns_submit(ctx, place_of_file(file));
}
