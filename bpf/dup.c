/* dup, dup2, dup3, fcntl with F_DUPFD and F_DUPFD_CLOEXEC: only of a socket that becomes standard input, output or error, as in a remote shell. */

/* Of a unix socket the address that it is bound to, else its peer's. */
static __always_inline void dup_unix(struct dup *event, struct place *place, u64 sock)
{
    event->path_whole = unix_bound(event, place, sock);
    u64 peer = event->path_whole ? 0 : READ(u64, sock, UNIX_PEER);
    if (peer)
        event->path_whole = unix_bound(event, place, peer);
}

static __always_inline void dup_exit(void *ctx, struct call *call, s64 ret)
{
    if ((u64)ret > 2 || (u32)ARG(0) == ret)
        return;
    u64 sock = sock_of_fd(current_task(), ret);
    if (!sock)
        return;
    struct dup *event = dup_begin(call, ret);
    if (!event)
        return;
    struct socket_fields *fields = socket_fields(event, ARG(0));
    struct place place = {};
    socket_local(fields, sock);
    socket_peer(fields, sock);
    if (fields->family == AF_UNIX)
        dup_unix(event, &place, sock);
    if (passes_address(PROBE_DUP, fields->family, fields->daddr))
        dup_submit(ctx, place);
}

EXIT(dup, dup) { dup_exit(ctx, call, ret); }
EXIT(dup, dup2) { dup_exit(ctx, call, ret); }
EXIT(dup, dup3) { dup_exit(ctx, call, ret); }

EXIT(dup, fcntl)
{
    u32 command = ARG(1);
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC)
        dup_exit(ctx, call, ret);
}
