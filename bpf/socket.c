/* socket: by default those that few programs have a use for, and those that could not be made. A netlink socket that calls itself raw is as good as any. */

static __always_inline bool socket_is_told(u32 domain, u32 type, s64 ret)
{
    if (ret < 0 || domain == AF_PACKET || domain == AF_ALG || domain == AF_VSOCK || domain == AF_KEY)
        return true;
    return (type & SOCK_TYPE_MASK) == SOCK_RAW && domain != AF_NETLINK;
}

EXIT(socket, socket)
{
    if (!socket_is_told(ARG(0), ARG(1), ret) && !has_rule(PROBE_SOCKET, ALL))
        return;
    struct socket *event = socket_begin(call, ret);
    if (!event)
        return;
    event->domain = ARG(0);
    event->type = (u32)ARG(1) & SOCK_TYPE_MASK;
    event->flags = (u32)ARG(1) & ~SOCK_TYPE_MASK;
    event->protocol = ARG(2);
    socket_submit(ctx);
}
