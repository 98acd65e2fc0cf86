/* mount, and the calls that do the same step by step: fsopen, fspick, fsconfig, fsmount, open_tree, move_mount, mount_setattr */

/* By their numbers in infrasight/schema/events/mount.py. */
enum { MOUNT, MOVE_MOUNT, FSOPEN, FSPICK, FSCONFIG, FSMOUNT, OPEN_TREE, MOUNT_SETATTR };
/* include/uapi/linux/mount.h */
enum { SET_STRING = 1, SET_PATH = 3, SET_PATH_EMPTY = 4 };
#define FSPICK_EMPTY_PATH 8
#define MOVE_MOUNT_T_EMPTY_PATH 0x40
struct attributes {
    u64 set;
    u64 clear;
    u64 propagation;
};

static __always_inline struct mount *mount_event(struct call *call, s64 ret, u32 which, s32 fd, u64 flags)
{
    struct mount *event = mount_begin(call, ret);
    if (!event)
        return 0;
    event->call = which;
    event->fd = fd;
    event->flags = flags;
    return event;
}

#define NO_PATH PATH_AT(AT_FDCWD, 0)

EXIT(mount, mount)
{
    if (mount_event(call, ret, MOUNT, -1, ARG(3)))
        mount_submit(ctx, ARG(0), PATH_AT(AT_FDCWD, ARG(1)), ARG(2), 0);
}

EXIT(mount, move_mount)
{
    if (mount_event(call, ret, MOVE_MOUNT, ARG(0), ARG(4)))
        mount_submit(ctx, ARG(1), PATH(ARG(3), ARG(2), ARG(4) & MOVE_MOUNT_T_EMPTY_PATH ? FD_START : NO_FD), 0, 0);
}

EXIT(mount, fsopen)
{
    if (mount_event(call, ret, FSOPEN, -1, ARG(1)))
        mount_submit(ctx, 0, NO_PATH, ARG(0), 0);
}

EXIT(mount, fspick)
{
    if (mount_event(call, ret, FSPICK, ARG(0), ARG(2)))
        mount_submit(ctx, 0, PATH(ARG(1), ARG(0), ARG(2) & FSPICK_EMPTY_PATH ? FD_START : NO_FD), 0, 0);
}

EXIT(mount, fsconfig)
{
    struct mount *event = mount_event(call, ret, FSCONFIG, ARG(0), 0);
    if (!event)
        return;
    event->command = ARG(1);
    event->aux = ARG(4);
    bool is_string = event->command == SET_STRING || event->command == SET_PATH || event->command == SET_PATH_EMPTY;
    mount_submit(ctx, is_string ? ARG(3) : 0, NO_PATH, 0, ARG(2));
}

EXIT(mount, fsmount)
{
    struct mount *event = mount_event(call, ret, FSMOUNT, ARG(0), ARG(1));
    if (!event)
        return;
    event->attr_set = (u32)ARG(2);
    mount_submit(ctx, 0, NO_PATH, 0, 0);
}

EXIT(mount, open_tree)
{
    if (mount_event(call, ret, OPEN_TREE, ARG(0), ARG(2)))
        mount_submit(ctx, 0, PATH_OR_START(ARG(0), ARG(1), ARG(2)), 0, 0);
}

EXIT(mount, mount_setattr)
{
    struct mount *event = mount_event(call, ret, MOUNT_SETATTR, ARG(0), ARG(2));
    if (!event)
        return;
    struct attributes attributes = {};
    bpf_probe_read_user(&attributes, sizeof(attributes), (void *)ARG(3));
    event->attr_set = attributes.set;
    event->attr_clr = attributes.clear;
    event->propagation = attributes.propagation;
    mount_submit(ctx, 0, PATH_OR_START(ARG(0), ARG(1), ARG(2)), 0, 0);
}
