/* connect: the address is read on entry, before the call can block for minutes; what kind of socket it is, and its local end, on exit. */

struct address {
    u16 family;
    u8 rest[UNIX_ADDRESS_MAX];
};
BPF_HASH(connect_addresses, u64, struct address, CONNECTS_IN_FLIGHT);

/* The struct sock behind a file descriptor, or 0 when it is no socket. */
static __always_inline u64 sock_of_fd(u64 task, u32 fd)
{
    u64 table = FIELD(u64, FIELD(u64, task, TASK_FILES), FILES_FDT);
    if (fd >= FIELD(u32, table, FDTABLE_MAX_FDS))
        return 0;
    u64 file = READ(u64, FIELD(u64, table, FDTABLE_FD), (u64)fd * sizeof(u64));
    if (!file || (READ(u16, READ(u64, file, FILE_INODE), INODE_MODE) & S_IFMT) != S_IFSOCK)
        return 0;
    return READ(u64, READ(u64, file, FILE_PRIVATE_DATA), SOCKET_SK);
}

static __always_inline void connect_socket(struct connect *record, u64 sock)
{
    record->socket_family = READ(u16, sock, SOCK_FAMILY);
    record->socket_type = READ(u16, sock, SOCK_TYPE);
    record->socket_protocol = READ(u16, sock, SOCK_PROTOCOL);
    record->sport = READ(u16, sock, SOCK_NUM);
    if (record->socket_family == AF_INET)
        bpf_probe_read_kernel(record->saddr, 4, (void *)(sock + SOCK_RCV_SADDR));
    else if (record->socket_family == AF_INET6)
        bpf_probe_read_kernel(record->saddr, 16, (void *)(sock + SOCK_V6_RCV_SADDR));
}

static __always_inline void connect_address(struct connect *record, struct address *address, u32 length)
{
    record->family = address->family;
    if (address->family == AF_INET) {
        record->dport = (u16)address->rest[0] << 8 | address->rest[1];
        __builtin_memcpy(record->daddr, &address->rest[2], 4);
    } else if (address->family == AF_INET6) {
        record->dport = (u16)address->rest[0] << 8 | address->rest[1];
        __builtin_memcpy(record->daddr, &address->rest[6], 16);
    } else if (address->family == AF_UNIX) {
        record->path_len = length > sizeof(address->family) ? length - sizeof(address->family) : 0;
        __builtin_memcpy(record->path, address->rest, sizeof(record->path));
    }
}

/* An address that was not in memory on entry is there now that the call has read it. */
static __always_inline void connect_address_again(struct address *address, struct call *call)
{
    u64 length = call->args[1];
    BOUND(length, sizeof(*address));
    if (call->args[2])
        bpf_probe_read_user(address, length, (void *)call->args[2]);
}

static __always_inline void connect_clear(struct connect *record)
{
    record->family = record->dport = record->sport = 0;
    record->socket_family = record->socket_type = record->socket_protocol = 0;
    record->path_len = 0;
    __builtin_memset(record->daddr, 0, sizeof(record->daddr));
    __builtin_memset(record->saddr, 0, sizeof(record->saddr));
}

ENTER(connect, connect)
{
    u64 task = bpf_get_current_task();
    if (is_self(bpf_get_current_pid_tgid() >> 32))
        return 0;
    struct address address = {};
    u64 length = (u32)ARG(2);
    BOUND(length, sizeof(address));
    bool unread = bpf_probe_read_user(&address, length, (void *)ARG(1));
    if (connect_addresses.update(&task, &address)) {
        lose(PROBE_CONNECT, LOST_INFLIGHT_FULL);
        return 0;
    }
    return call_enter(PROBE_CONNECT, ARG(0), length, unread ? (u64)ARG(1) : 0, 0);
}

EXIT(connect, connect)
{
    u64 key = bpf_get_current_task();
    struct call *call = call_exit();
    struct address *address = connect_addresses.lookup(&key);
    if (!address)
        return call_done(call);
    struct connect *record = connect_begin(call, ret);
    if (record) {
        connect_clear(record);
        record->fd = call->args[0];
        connect_address_again(address, call);
        connect_address(record, address, call->args[1]);
        u64 sock = sock_of_fd(current_task(), record->fd);
        if (sock)
            connect_socket(record, sock);
        connect_submit(record);
    }
    connect_addresses.delete(&key);
    return call_done(call);
}
