/* accept, accept4: both ends of the new socket; of one that failed, what is listened on. */

static __always_inline void accept_unix(struct accept *event, struct place *place, u64 sock, s64 ret)
{
    event->path_whole = unix_bound(event, place, sock);
    u64 peer = ret < 0 ? 0 : READ(u64, sock, UNIX_PEER);
    if (peer)
        event->peer_used = unix_address(event->peer, peer);
}

static __always_inline void accept_exit(void *ctx, struct call *call, s64 ret, u32 flags)
{
    struct accept *event = accept_begin(call, ret);
    if (!event)
        return;
    struct socket_fields *fields = socket_fields(event, ARG(0));
    struct place place = {};
    u64 sock = sock_of_fd(current_task(), ret < 0 ? ARG(0) : ret);
    event->flags = flags;
    if (sock) {
        socket_local(fields, sock);
        fields->family = fields->socket_family;
        if (ret >= 0)
            socket_peer(fields, sock);
        if (fields->family == AF_UNIX)
            accept_unix(event, &place, sock, ret);
    }
    if (passes_address(PROBE_ACCEPT, ret < 0 ? 0 : fields->family, fields->daddr))
        accept_submit(ctx, place);
}

EXIT(accept, accept) { accept_exit(ctx, call, ret, 0); }
EXIT(accept, accept4) { accept_exit(ctx, call, ret, ARG(3)); }
