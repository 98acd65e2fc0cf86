/* connect: the address is read on entry, before the call can block for minutes; what kind of socket it is, and its local end, on exit. */

BPF_HASH(connect_addresses, u64, struct address, CONNECTS_IN_FLIGHT);

/* The file of a unix socket: the one it is connected to, else where its path starts. */
static __always_inline struct place connect_place(struct connect *event, u64 sock, s64 ret)
{
    u64 peer = ret < 0 ? 0 : READ(u64, sock, UNIX_PEER);
    event->path_whole = peer != 0;
    return peer ? place_at(peer + UNIX_PATH) : unix_start(event);
}

ENTER(connect, connect)
{
    u64 task = bpf_get_current_task();
    struct address address = {};
    u64 length = (u32)ARG(2);
    BOUND(length, sizeof(address));
    call->args[2] = length;
    /* An address that is not in memory now will be once the call has read it. */
    call->args[3] = !read_address(&address, ARG(1), length);
    if (connect_addresses.update(&task, &address)) {
        lose(PROBE_CONNECT, LOST_INFLIGHT_FULL);
        call_done(call);
    }
}

static __always_inline void connect_compose(void *ctx, struct call *call, s64 ret, struct address *address)
{
    struct connect *event = connect_begin(call, ret);
    if (!event)
        return;
    struct socket_fields *fields = socket_fields(event, ARG(0));
    struct place place = {};
    if (ARG(3))
        read_address(address, ARG(1), ARG(2));
    socket_address(fields, address);
    u64 sock = sock_of_fd(current_task(), ARG(0));
    if (sock)
        socket_local(fields, sock);
    if (address->family == AF_UNIX) {
        unix_address_given(event, address, ARG(2));
        place = connect_place(event, fields->socket_family == AF_UNIX ? sock : 0, ret);
    }
    if (passes_address(PROBE_CONNECT, address->family, fields->daddr))
        connect_submit(ctx, place);
}

EXIT(connect, connect)
{
    u64 key = bpf_get_current_task();
    struct address *address = connect_addresses.lookup(&key);
    if (!address)
        return;
    struct address copy = *address;
    connect_addresses.delete(&key);
    connect_compose(ctx, call, ret, &copy);
}
