/*
 * dns: messages to and from name servers, over UDP port 53: what is in them the node makes out. Nearly all that is sent and received is something else,
 * so first the length is looked at, then the message's first bytes, and only then the socket.
 */

#define DNS_PORT 53
#define DNS_LEAST 17 /* a header and the shortest question */
#define DNS_MESSAGES_MAX 8

enum { DNS_QUERY = 1, DNS_ANSWER = 2 };

/* Where a message is in the caller's memory, and the address that it goes to or came from, 0 for none. */
struct dns_message {
    u64 data;
    u64 length;
    u64 address;
};

/* What is in the first part of a message: a struct iovec. */
static __always_inline bool dns_part_at(struct dns_message *to, struct call *call, u64 from)
{
    u64 part[2] = {};
    if (call->short_pointers) {
        u32 short_part[2] = {};
        if (bpf_probe_read_user(short_part, sizeof(short_part), (void *)from))
            return false;
        *to = (struct dns_message){.data = short_part[0], .length = short_part[1]};
        return true;
    }
    if (bpf_probe_read_user(part, sizeof(part), (void *)from))
        return false;
    *to = (struct dns_message){.data = part[0], .length = part[1]};
    return true;
}

/* Of a struct msghdr: what is in its first part, as long as that is. */
static __always_inline bool dns_message_at(struct dns_message *to, struct call *call, u64 header)
{
    u64 words[4] = {};
    if (call->short_pointers) {
        u32 short_words[4] = {};
        bpf_probe_read_user(short_words, sizeof(short_words), (void *)header);
        words[0] = short_words[0];
        words[2] = short_words[2];
        words[3] = short_words[3];
    } else {
        bpf_probe_read_user(words, sizeof(words), (void *)header);
    }
    if (!words[3] || !dns_part_at(to, call, words[2]))
        return false;
    to->address = words[0];
    return true;
}

/* Whether it looks like a query, or an answer, with one question. */
static __always_inline bool dns_looks_right(struct dns_message *message, u32 action)
{
    u8 header[12];
    if (message->length < DNS_LEAST || message->length > 65535 || !rule_of(PROBE_DNS))
        return false;
    if (bpf_probe_read_user(header, sizeof(header), (void *)message->data))
        return false;
    return header[2] >> 7 == (action == DNS_ANSWER) && !header[4] && header[5] == 1;
}

/* The two ends, of which the other is the name server. False when it is none. */
static __always_inline bool dns_ends(struct socket_fields *fields, u64 sock, u64 from, u32 action)
{
    struct address address = {};
    socket_local(fields, sock);
    if (!is_internet(fields->socket_family) || fields->socket_type != SOCK_DGRAM || fields->socket_protocol != IPPROTO_UDP)
        return false;
    socket_peer(fields, sock);
    if (from && (action == DNS_QUERY || !fields->dport)) {
        read_address(&address, from, 16);
        if (address.family == AF_INET6)
            read_address(&address, from, 28);
        __builtin_memset(fields->daddr, 0, sizeof(fields->daddr));
        socket_address(fields, &address);
    }
    return fields->dport == DNS_PORT;
}

/* `next`: the program that looks at the next message of the same call; 0 for none. */
static __always_inline void dns_tell(void *ctx, struct call *call, s64 ret, struct dns_message message, u32 action, u32 next)
{
    if (!dns_looks_right(&message, action))
        return;
    u64 sock = sock_of_fd(current_task(), ARG(0));
    struct dns *event = sock ? dns_begin(call, ret) : 0;
    struct draft *draft = draft_of_cpu();
    if (!event || !draft)
        return;
    if (!dns_ends(socket_fields(event, ARG(0)), sock, message.address, action) || !passes_address(PROBE_DNS, event->family, event->daddr))
        return;
    u64 length = message.length;
    BOUND(length, MESSAGE_SHORT_DNS);
    if (bpf_probe_read_user(draft->own, length, (void *)message.data))
        return;
    draft->own_length = length;
    draft->next = next;
    event->action = action;
    event->bytes = message.length;
    dns_submit(ctx);
}

EXIT(dns, sendto)
{
    struct dns_message message = {.data = ARG(1), .length = ret < 0 ? ARG(2) : ret, .address = ARG(4)};
    dns_tell(ctx, call, ret, message, DNS_QUERY, 0);
}

EXIT(dns, sendmsg)
{
    struct dns_message message;
    if (dns_message_at(&message, call, ARG(1)))
        dns_tell(ctx, call, ret, message, DNS_QUERY, 0);
}

static __always_inline u64 dns_received(s64 ret, u64 room) { return ret < 0 ? 0 : (u64)ret < room ? ret : room; }

EXIT(dns, recvfrom)
{
    struct dns_message message = {.data = ARG(1), .length = dns_received(ret, ARG(2)), .address = ARG(4)};
    if (!(ARG(3) & MSG_PEEK))
        dns_tell(ctx, call, ret, message, DNS_ANSWER, 0);
}

EXIT(dns, recvmsg)
{
    struct dns_message message;
    if (ret < DNS_LEAST || ARG(2) & MSG_PEEK || !dns_message_at(&message, call, ARG(1)))
        return;
    message.length = dns_received(ret, message.length);
    dns_tell(ctx, call, ret, message, DNS_ANSWER, 0);
}

/* Of calls with several messages: the next of them, then on to this program again. A struct mmsghdr is a struct msghdr and how much was received. */
static __always_inline void dns_next(void *ctx, u32 action, u32 program)
{
    u64 task = current_task();
    struct call *call = call_last(task, FIELD(u32, task, TASK_PID));
    struct draft *draft = draft_of_cpu();
    if (!call || !draft)
        return;
    u64 turn = draft->turn, header_bytes = call->short_pointers ? 28 : 56, apart = call->short_pointers ? 32 : 64;
    s64 ret = draft->ret;
    if (turn >= DNS_MESSAGES_MAX || (turn && (s64)turn >= ret))
        return;
    draft->turn = turn + 1;
    struct dns_message message;
    u32 received = 0;
    if (dns_message_at(&message, call, ARG(1) + turn * apart)) {
        bpf_probe_read_user(&received, sizeof(received), (void *)(ARG(1) + turn * apart + header_bytes));
        if (action == DNS_ANSWER)
            message.length = dns_received(received, message.length);
        dns_tell(ctx, call, ret, message, action, program);
    }
    programs.call(ctx, program);
}

PROGRAM(dns, queries)
{
    dns_next(ctx, DNS_QUERY, PROGRAM_DNS_QUERIES);
    return 0;
}

PROGRAM(dns, answers)
{
    dns_next(ctx, DNS_ANSWER, PROGRAM_DNS_ANSWERS);
    return 0;
}

static __always_inline struct draft *dns_begin_turns(s64 ret)
{
    struct draft *draft = rule_of(PROBE_DNS) ? draft_of_cpu() : 0;
    if (!draft)
        return 0;
    draft->ret = ret;
    draft->turn = 0;
    return draft;
}

EXIT(dns, sendmmsg)
{
    if (dns_begin_turns(ret))
        programs.call(ctx, PROGRAM_DNS_QUERIES);
}

EXIT(dns, recvmmsg)
{
    if (ret > 0 && !(ARG(3) & MSG_PEEK) && dns_begin_turns(ret))
        programs.call(ctx, PROGRAM_DNS_ANSWERS);
}

/*
 * write, writev, read and readv on a connected socket, as programs in Go and systemd-resolved do: seen where the kernel tells of all that sockets send and
 * receive (since Linux 6.3), since to have these calls told would cost each of the machine, whatever it is on. When such a call began is not known.
 */
static __always_inline int dns_of_socket(struct bpf_raw_tracepoint_args *ctx, u32 action, u32 plain, u32 in_parts)
{
#ifdef TYPED_CURRENT_TASK
    u64 task = current_task();
    s64 ret = (s32)ctx->args[1];
    struct call call = {};
    struct dns_message message = {};
    if (READ(u16, ctx->args[0], SOCK_DPORT) != __builtin_bswap16(DNS_PORT))
        return 0;
    if (FIELD(u32, task, TASK_FLAGS) & PF_KTHREAD || is_self(FIELD(u32, task, TASK_TGID)))
        return 0;
    u32 number = call_under_way(ctx, &call, task);
    if (number == plain)
        message = (struct dns_message){.data = call.args[1], .length = call.args[2]};
    else if (number != in_parts || !dns_part_at(&message, &call, call.args[1]))
        return 0;
    if (action == DNS_ANSWER)
        message.length = dns_received(ret, message.length);
    call.enter_ns = bpf_ktime_get_ns();
    dns_tell(ctx, &call, ret, message, action, 0);
#endif
    return 0;
}

/* socket, return code, flags */
RAW(dns, sock_send_length)
{
    return dns_of_socket(ctx, DNS_QUERY, CALL_WRITE, CALL_WRITEV);
}

RAW(dns, sock_recv_length)
{
    return dns_of_socket(ctx, DNS_ANSWER, CALL_READ, CALL_READV);
}
