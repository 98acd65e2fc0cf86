/* What sockets are, their two ends, and the addresses that calls are given. */

struct address {
    u16 family;
    u8 rest[UNIX_ADDRESS_MAX];
};

/* The struct sock behind a file descriptor, or 0 when it is no socket. */
static __always_inline u64 sock_of_fd(u64 task, u32 fd)
{
    u64 file = file_of_fd(task, fd);
    if (!file || (READ(u16, READ(u64, file, FILE_INODE), INODE_MODE) & S_IFMT) != S_IFSOCK)
        return 0;
    return READ(u64, READ(u64, file, FILE_PRIVATE_DATA), SOCKET_SK);
}

/* The part of a draft that is the same for all kinds about sockets, of a call that was given `fd`. */
static __always_inline struct socket_fields *socket_fields(void *event, u32 fd)
{
    struct socket_fields *fields = (struct socket_fields *)((u8 *)event + sizeof(struct head));
    fields->fd = fd;
    return fields;
}

/* The draft that a probe's fields are in. */
static __always_inline struct draft *draft_of(void *event) { return (struct draft *)((u8 *)event - __builtin_offsetof(struct draft, record)); }

static __always_inline bool is_internet(u32 family) { return family == AF_INET || family == AF_INET6; }

/*
 * What a socket is, and its own end, as getsockname tells it: of a connection that was refused, or reset before it was accepted, too, though the port is no
 * longer its own. Raw sockets keep their protocol where others keep the port.
 */
static __always_inline void socket_local(struct socket_fields *to, u64 sock)
{
    to->socket_family = READ(u16, sock, SOCK_FAMILY);
    to->socket_type = READ(u16, sock, SOCK_TYPE);
    to->socket_protocol = READ(u16, sock, SOCK_PROTOCOL);
    if (is_internet(to->socket_family) && to->socket_type != SOCK_RAW)
        to->sport = __builtin_bswap16(READ(u16, sock, INET_SPORT));
    if (to->socket_family == AF_INET)
        bpf_probe_read_kernel(to->saddr, 4, (void *)(sock + SOCK_RCV_SADDR));
    else if (to->socket_family == AF_INET6)
        bpf_probe_read_kernel(to->saddr, 16, (void *)(sock + SOCK_V6_RCV_SADDR));
}

/* The other end, after socket_local. */
static __always_inline void socket_peer(struct socket_fields *to, u64 sock)
{
    to->family = to->socket_family;
    if (!is_internet(to->family))
        return;
    to->dport = __builtin_bswap16(READ(u16, sock, SOCK_DPORT));
    if (to->family == AF_INET)
        bpf_probe_read_kernel(to->daddr, 4, (void *)(sock + SOCK_DADDR));
    else
        bpf_probe_read_kernel(to->daddr, 16, (void *)(sock + SOCK_V6_DADDR));
}

/* An address that a call is given, as the other end. */
static __always_inline void socket_address(struct socket_fields *to, struct address *address)
{
    to->family = address->family;
    if (!is_internet(to->family))
        return;
    to->dport = (u16)address->rest[0] << 8 | address->rest[1];
    if (to->family == AF_INET)
        __builtin_memcpy(to->daddr, &address->rest[2], 4);
    else
        __builtin_memcpy(to->daddr, &address->rest[6], 16);
}

/* `length` bytes of an address in user memory; false when they cannot be read. */
static __always_inline bool read_address(struct address *address, u64 from, u64 length)
{
    BOUND(length, sizeof(*address));
    return !bpf_probe_read_user(address, length, (void *)from);
}

/* The same, of a unix socket: its path becomes the draft's own bytes. `length` includes the family. */
static __always_inline void unix_address_given(void *event, struct address *address, u32 length)
{
    struct draft *draft = draft_of(event);
    draft->own_length = length > sizeof(address->family) ? length - sizeof(address->family) : 0;
    bpf_probe_read_kernel(draft->own, UNIX_ADDRESS_MAX, address->rest);
}

/* The address that a unix socket is bound to, to `to`; its length, 0 when there is none. */
static __always_inline u32 unix_address(u8 *to, u64 sock)
{
    u64 address = READ(u64, sock, UNIX_ADDRESS);
    u64 length = address ? (u32)READ(u32, address, UNIX_ADDRESS_LEN) - sizeof(u16) : 0;
    BOUND(length, UNIX_ADDRESS_MAX);
    bpf_probe_read_kernel(to, length, (void *)(address + UNIX_ADDRESS_NAME + sizeof(u16)));
    return length;
}

/* Path and file of a unix socket that is bound; false when it is not. */
static __always_inline bool unix_bound(void *event, struct place *place, u64 sock)
{
    struct draft *draft = draft_of(event);
    draft->own_length = unix_address(draft->own, sock);
    *place = place_at(sock + UNIX_PATH);
    return draft->own_length;
}

/* Where the path of a unix socket starts that led nowhere. */
static __always_inline struct place unix_start(void *event)
{
    struct draft *draft = draft_of(event);
    if (draft->own_length == 0 || draft->own[0] == 0)
        return (struct place){};
    return draft->own[0] == '/' ? place_of_chroot(current_task()) : place_of_cwd(current_task());
}
