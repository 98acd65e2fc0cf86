/*
 * Where a file really is, as the kernel found it: the names from the file up to the root of its mount namespace, out of the directory entries. Whoever
 * reads the record puts them in order. Neither symbolic links, nor `..`, nor a root changed by chroot can hide anything in it.
 */

/* struct path: a directory entry in a mount. All zero: no such thing. */
struct place {
    u64 mount; /* struct vfsmount, inside a struct mount */
    u64 dentry;
};
_Static_assert(PATH_MNT == 0 && PATH_DENTRY == 8, "struct path");

/* A path as a call is given it: a string in user memory, what it is relative to, and the file it led to, or one of the numbers below. */
struct path {
    u64 string;
    s32 dirfd;
    s32 fd;
};
#define PATH(user_string, start, opened) ((struct path){.string = (user_string), .dirfd = (start), .fd = (opened)})
#define NO_FD -1       /* to none, or not yet */
#define FD_ROOT -2     /* to what is now the root directory of the caller */
#define FD_CONFINED -3 /* to none; what it starts from is its root, as RESOLVE_IN_ROOT has it */
#define FD_START -4    /* to none; if it is empty it stands for what it starts from, as AT_EMPTY_PATH has it, and be that the working directory */
/* Of a call that takes a path and opens nothing. */
#define PATH_AT(start, user_string) PATH(user_string, start, NO_FD)
/* The same, of a call that takes AT_EMPTY_PATH. */
#define PATH_OR_START(start, user_string, flags) PATH(user_string, start, (flags) & AT_EMPTY_PATH ? FD_START : NO_FD)

/* What the names in a record are, bits of its `<path>_whole` (infrasight/node/paths.py): those of the file itself; cut; those of its root. */
#define PLACE_WHOLE 1
#define PLACE_CUT 2
#define PLACE_CONFINED 4

static __always_inline bool leads_to_file(struct path path) { return path.fd >= 0 || path.fd == FD_ROOT; }

static __always_inline u32 place_flags(struct path path)
{
    return leads_to_file(path) ? PLACE_WHOLE : path.fd == FD_CONFINED ? PLACE_CONFINED : 0;
}

static __always_inline u64 file_of_fd(u64 task, u32 fd)
{
    u64 table = FIELD(u64, FIELD(u64, task, TASK_FILES), FILES_FDT);
    if (fd >= FIELD(u32, table, FDTABLE_MAX_FDS))
        return 0;
    return READ(u64, FIELD(u64, table, FDTABLE_FD), (u64)fd * sizeof(u64));
}

static __always_inline struct place place_at(u64 path)
{
    struct place place = {};
    bpf_probe_read_kernel(&place, sizeof(place), (void *)path);
    return place;
}

static __always_inline struct place place_of_file(u64 file)
{
    if (!file)
        return (struct place){};
    return place_at(file + FILE_PATH);
}

static __always_inline struct place place_of_cwd(u64 task)
{
    u64 fs = FIELD(u64, task, TASK_FS);
    return (struct place){.mount = FIELD(u64, fs, FS_PWD + PATH_MNT), .dentry = FIELD(u64, fs, FS_PWD + PATH_DENTRY)};
}

static __always_inline struct place place_of_root(u64 task)
{
    u64 fs = FIELD(u64, task, TASK_FS);
    return (struct place){.mount = FIELD(u64, fs, FS_ROOT + PATH_MNT), .dentry = FIELD(u64, fs, FS_ROOT + PATH_DENTRY)};
}

/*
 * What an absolute path starts from; all zero when that is the root of the mount namespace, as it nearly always is. That root lies on the namespace's
 * first mount, or is it.
 */
static __always_inline struct place place_of_chroot(u64 task)
{
    struct place root = place_of_root(task);
    u64 first = FIELD(u64, FIELD(u64, FIELD(u64, task, TASK_NSPROXY), NSPROXY_MNT_NS), MNT_NS_ROOT);
    if (root.dentry != FIELD(u64, root.mount, VFSMOUNT_ROOT))
        return root;
    u64 up[2] = {};
    bpf_probe_read_kernel(up, sizeof(up), (void *)(root.mount - MOUNT_MNT + MOUNT_PARENT));
    if (root.mount == first + MOUNT_MNT || (up[0] == first && up[1] == FIELD(u64, first, MOUNT_MNT + VFSMOUNT_ROOT)))
        return (struct place){};
    return root;
}

/* The program that the current process runs. */
static __always_inline struct place place_of_exe(u64 task)
{
    return place_of_file(FIELD(u64, FIELD(u64, task, TASK_MM), MM_EXE_FILE));
}

/* The file that a path led to; without one, where the path starts: `first` is its first byte, 0 when it is empty, which with a descriptor stands for the
 * file itself, or could not be read. All zero for absolute paths, unless the caller has another root than its mount namespace. */
static __always_inline struct place place_of_path(struct path path, u8 first)
{
    u64 task = current_task();
    if (path.fd == FD_ROOT)
        return place_of_root(task);
    if (path.fd >= 0)
        return place_of_file(file_of_fd(task, path.fd));
    if (first == '/' && path.fd != FD_CONFINED)
        return place_of_chroot(task);
    if (path.dirfd == AT_FDCWD)
        return first || path.fd == FD_START ? place_of_cwd(task) : (struct place){};
    return place_of_file(file_of_fd(task, path.dirfd));
}

#define PUT_WORDS(to, from, count)                                                                 \
    _Pragma("unroll") for (u32 word = 0; word < (count); word++) ((u64 *)(to))[word] = (from)[word]

/* A short name, which lies inside its entry; near the end of the room only as much is put as it takes. */
static __always_inline bool put_inlined(u8 *to, u32 room, u32 at, u64 *inlined, u64 length)
{
    if (at <= room - DENTRY_INLINE_BYTES) {
        PUT_WORDS(to + at, inlined, DENTRY_INLINE_BYTES / 8);
        return true;
    }
    if (length < 8 && at <= room - 8) {
        PUT_WORDS(to + at, inlined, 1);
        return true;
    }
    if (length < 16 && at <= room - 16) {
        PUT_WORDS(to + at, inlined, 2);
        return true;
    }
    if (length < 24 && at <= room - 24) {
        PUT_WORDS(to + at, inlined, 3);
        return true;
    }
    return false;
}

/* One name to `to[at]`, with its NUL; false when there is no room for it. `room` is a constant. */
static __always_inline bool put_name(u8 *to, u32 room, u32 at, u64 *inlined, u64 name, u64 length)
{
    if (length < DENTRY_INLINE_BYTES)
        return put_inlined(to, room, at, inlined, length);
    length += 1;
    if (room >= 512) {
        BOUND(length, 256);
        return at <= room - 256 && !bpf_probe_read_kernel(to + at, length, (void *)name);
    }
    if (at == 0) {
        if (length > room)
            return false;
        BOUND(length, room);
        return !bpf_probe_read_kernel(to, length, (void *)name);
    }
    if (length > room / 2 || at > room / 2)
        return false;
    BOUND(length, room / 2);
    return !bpf_probe_read_kernel(to + at, length, (void *)name);
}

/*
 * The names of a place, the file's own first, each ended by a NUL, to `to`; their length to `used`. False when they do not fit, or are too many: then
 * what did fit is there. `used` is in memory that the verifier knows nothing about, or it would follow each path through the loop by itself.
 */
static __always_inline bool walk(u8 *to, u32 room, u32 *length, struct place place, u32 steps)
{
    volatile u32 *used = length;
    *used = 0;
    if (!place.dentry)
        return true;
    u64 dentry = place.dentry, mount = place.mount - MOUNT_MNT, root = READ(u64, place.mount, VFSMOUNT_ROOT);
    for (u32 step = 0; step < steps; step++) {
        u64 entry[DENTRY_SPAN / 8];
        if (dentry == root) {
            u64 up[2] = {};
            bpf_probe_read_kernel(up, sizeof(up), (void *)(mount + MOUNT_PARENT));
            if (up[0] == mount) {
                if (!*used) { /* the root itself, which has no name, is one empty name */
                    to[0] = 0;
                    *used = 1;
                }
                return true;
            }
            mount = up[0];
            dentry = up[1];
            root = READ(u64, mount, MOUNT_MNT + VFSMOUNT_ROOT);
            continue;
        }
        if (bpf_probe_read_kernel(entry, sizeof(entry), (void *)(dentry + DENTRY_PARENT)))
            return true;
        u64 parent = entry[0], name_length = entry[(DENTRY_NAME - DENTRY_PARENT) / 8] >> 32;
        u64 name = entry[(DENTRY_NAME - DENTRY_PARENT) / 8 + 1];
        u32 at = *used;
        u64 *inlined = entry + (DENTRY_INLINE - DENTRY_PARENT) / 8;
        if (parent == dentry && (u8)inlined[0] == '/')
            return true; /* the root of a file system that is not reached from here, which only is called so */
        if (name_length) {
            if (!put_name(to, room, at, inlined, name, name_length))
                return false;
            *used = at + name_length + 1;
        }
        if (parent == dentry)
            return true; /* in no tree: an anonymous file */
        dentry = parent;
    }
    return false;
}

/* Where a path leads, or starts from: see place_of_path. */
static __always_inline bool walk_path(u8 *to, u32 room, u32 *length, struct path path, u8 first, u32 steps)
{
    return walk(to, room, length, place_of_path(path, first), steps);
}
