/* Makes exactly N connects of every family, refused and missing ones too, to sockets of its own on the loopback. */
#include "workload.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un un;
};

struct target {
    const char *name;
    int family, type, expected;
    union address address;
    socklen_t length;
    int listener; /* accepts after each connect; -1 where nobody does */
};

enum { TCP4, TCP4_REFUSED, TCP4_NONBLOCK, TCP6, TCP6_REFUSED, UDP4, UDP6, UNIX, UNIX_ENOENT, UNIX_ABSTRACT, KINDS };
static struct target targets[KINDS] = {
    [TCP4] = {"tcp4", AF_INET, SOCK_STREAM, 0, {{0}}, 0, -1},
    [TCP4_REFUSED] = {"tcp4_refused", AF_INET, SOCK_STREAM, -ECONNREFUSED, {{0}}, 0, -1},
    [TCP4_NONBLOCK] = {"tcp4_nonblock", AF_INET, SOCK_STREAM | SOCK_NONBLOCK, -EINPROGRESS, {{0}}, 0, -1},
    [TCP6] = {"tcp6", AF_INET6, SOCK_STREAM, 0, {{0}}, 0, -1},
    [TCP6_REFUSED] = {"tcp6_refused", AF_INET6, SOCK_STREAM, -ECONNREFUSED, {{0}}, 0, -1},
    [UDP4] = {"udp4", AF_INET, SOCK_DGRAM, 0, {{0}}, 0, -1},
    [UDP6] = {"udp6", AF_INET6, SOCK_DGRAM, 0, {{0}}, 0, -1},
    [UNIX] = {"unix", AF_UNIX, SOCK_STREAM, 0, {{0}}, 0, -1},
    [UNIX_ENOENT] = {"unix_enoent", AF_UNIX, SOCK_STREAM, -ENOENT, {{0}}, 0, -1},
    [UNIX_ABSTRACT] = {"unix_abstract", AF_UNIX, SOCK_STREAM, 0, {{0}}, 0, -1},
};

/* Any free port of the loopback stays ours while the socket is bound; without listen(2) it refuses. */
static void prepare_inet(struct target *t, int listens)
{
    int fd = socket(t->family, t->type & ~SOCK_NONBLOCK, 0);
    if (t->family == AF_INET) {
        t->address.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        t->length = sizeof(t->address.v4);
    } else {
        t->address.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
        t->length = sizeof(t->address.v6);
    }
    if (fd < 0 || bind(fd, &t->address.any, t->length) || getsockname(fd, &t->address.any, &t->length) || (listens && listen(fd, 16)))
        refuse("%s: cannot prepare: %s", t->name, strerror(errno));
    t->listener = listens ? fd : -1;
}

/* `name` begins with '@' for an abstract address, whose length tells where it ends. */
static void prepare_unix(struct target *t, const char *name, int listens)
{
    size_t bytes = strlen(name);
    if (bytes >= sizeof(t->address.un.sun_path))
        refuse("%s: path too long", t->name);
    t->address.un.sun_family = AF_UNIX;
    memcpy(t->address.un.sun_path, name, bytes + 1);
    if (name[0] == '@')
        t->address.un.sun_path[0] = 0;
    t->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + bytes + (name[0] != '@'));
    if (!listens)
        return;
    t->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (t->listener < 0 || bind(t->listener, &t->address.any, t->length) || listen(t->listener, 16))
        refuse("%s: cannot prepare %s: %s", t->name, name, strerror(errno));
}

static int connect_once(const struct target *t)
{
    int fd = socket(t->family, t->type, 0);
    int ret = connect(fd, &t->address.any, t->length) ? -errno : 0;
    if (t->listener >= 0)
        close(accept(t->listener, NULL, NULL));
    close(fd);
    if (ret != t->expected)
        refuse("%s: connect gave %d, not %d", t->name, ret, t->expected);
    return ret;
}

static void put_log(FILE *log, const struct target *t, int ret)
{
    char text[sizeof(t->address.un.sun_path) + 1] = {0};
    int port = 0;
    if (t->family == AF_UNIX) {
        memcpy(text, t->address.un.sun_path, t->length - offsetof(struct sockaddr_un, sun_path));
        text[0] = text[0] ? text[0] : '@';
    } else {
        const void *bytes = t->family == AF_INET ? (const void *)&t->address.v4.sin_addr : &t->address.v6.sin6_addr;
        inet_ntop(t->family, bytes, text, sizeof(text));
        port = ntohs(t->family == AF_INET ? t->address.v4.sin_port : t->address.v6.sin6_port);
    }
    const char *family = t->family == AF_UNIX ? "unix" : t->family == AF_INET ? "inet" : "inet6";
    const char *type = (t->type & ~SOCK_NONBLOCK) == SOCK_DGRAM ? "dgram" : "stream";
    fprintf(log, "{\"pid\": %d, \"kind\": \"%s\", \"family\": \"%s\", \"type\": \"%s\", \"address\": ", getpid(), t->name, family, type);
    put_json_string(log, text);
    fprintf(log, ", \"port\": %d, \"ret\": %d}\n", port, ret);
}

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {{"count", 1, 0, 'n'}, {"dir", 1, 0, 'd'}, {"log", 1, 0, 'l'}, {0}};
    char path[256], missing[256], abstract[64];
    unsigned long long counts[KINDS] = {0};
    const char *dir = NULL;
    FILE *log = NULL;
    long count = 0;
    for (int c; (c = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        switch (c) {
        case 'n': count = atol(optarg); break;
        case 'd': dir = optarg; break;
        case 'l': log = fopen(optarg, "we"); break;
        default: return 2;
        }
    }
    if (count < 1 || !dir)
        refuse("usage: connects --count N --dir DIR [--log FILE]");
    snprintf(path, sizeof(path), "%s/listener.sock", dir);
    snprintf(missing, sizeof(missing), "%s/missing.sock", dir);
    snprintf(abstract, sizeof(abstract), "@infrasight-connects-%d", getpid());
    for (int kind = TCP4; kind <= UDP6; kind++)
        prepare_inet(&targets[kind], kind == TCP4 || kind == TCP4_NONBLOCK || kind == TCP6);
    prepare_unix(&targets[UNIX], path, 1);
    prepare_unix(&targets[UNIX_ENOENT], missing, 0);
    prepare_unix(&targets[UNIX_ABSTRACT], abstract, 1);

    for (long k = 0; k < count; k++) {
        const struct target *t = &targets[k % KINDS];
        int ret = connect_once(t);
        counts[k % KINDS]++;
        if (log)
            put_log(log, t, ret);
    }
    unlink(path);
    if (log && fclose(log))
        refuse("--log: %s", strerror(errno));
    printf("{\"workload\": \"connects\", \"pid\": %d, \"connects\": %ld, \"kinds\": {", getpid(), count);
    for (int kind = 0; kind < KINDS; kind++)
        printf("%s\"%s\": %llu", kind ? ", " : "", targets[kind].name, counts[kind]);
    puts("}}");
    return 0;
}
