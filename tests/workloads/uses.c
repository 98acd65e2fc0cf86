/*
 * Uses a known amount of everything that is counted of a process, and says how much. It waits for a byte on standard input, does it, prints its line, waits
 * for another byte or the end, and ends: so that whoever counts can look before and after. In between it makes no other call than it says.
 */
#include "workload.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

enum { MESSAGES = 300, MESSAGE = 7, BLOCK = 4099, STACK = 1 << 16 };

static struct {
    unsigned long long mapped, unmapped, grown, shrunk, touched, read, written, received, sent;
} used;

static void must(int well, const char *what)
{
    if (!well)
        refuse("%s: %s", what, strerror(errno));
}

static unsigned long long cpu_ns_per_thread;

static void *burn(void *unused)
{
    unsigned long long end = clock_ns(CLOCK_THREAD_CPUTIME_ID) + cpu_ns_per_thread;
    while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < end)
        for (volatile int turn = 0; turn < 100000; turn++)
            ;
    return unused;
}

/* Stacks of our own, mapped before anything is counted. */
static void burn_in_threads(int threads, char *stacks)
{
    pthread_t *all = (pthread_t *)(stacks + (size_t)threads * STACK);
    for (int k = 0; k < threads; k++) {
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setstack(&attributes, stacks + (size_t)k * STACK, STACK);
        must(!pthread_create(&all[k], &attributes, burn, NULL), "thread");
    }
    for (int k = 0; k < threads; k++)
        pthread_join(all[k], NULL);
}

static void *map(size_t bytes, int flags)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    must(at != MAP_FAILED, "mmap");
    madvise(at, bytes, MADV_NOHUGEPAGE); /* so that each page is a fault */
    used.mapped += (bytes + 4095) / 4096 * 4096;
    return at;
}

static void unmap(void *at, size_t bytes)
{
    must(!munmap(at, bytes), "munmap");
    used.unmapped += (bytes + 4095) / 4096 * 4096;
}

static void touch(char *at, size_t pages)
{
    for (size_t page = 0; page < pages; page++)
        ((volatile char *)at)[page * 4096] = 1;
    used.touched += pages;
}

static void use_memory(size_t pages)
{
    size_t bytes = pages * 4096;
    char *at = map(bytes - 1, 0), *copy;
    touch(at, pages);
    must((at = mremap(at, bytes, 2 * bytes, MREMAP_MAYMOVE)) != MAP_FAILED, "mremap");
    used.mapped += bytes;
    touch(at + bytes, pages);
    must(mremap(at, 2 * bytes, bytes, 0) == at, "mremap");
    used.unmapped += bytes;
    must((copy = mremap(at, bytes, bytes, MREMAP_MAYMOVE | MREMAP_DONTUNMAP)) != MAP_FAILED, "mremap that leaves what was there");
    used.mapped += bytes;
    touch(at, pages);
    unmap(at, bytes - 5);
    unmap(copy, bytes);
    must(munmap((void *)1, 4096) < 0 && mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED, "what fails");

    long start = syscall(SYS_brk, 0), end = start + (long)bytes + 100;
    must(syscall(SYS_brk, end) == end, "brk");
    used.grown += bytes + 100;
    must(syscall(SYS_brk, end - 4096) == end - 4096, "brk");
    used.shrunk += 4096;
    must(syscall(SYS_brk, 1) == end - 4096, "brk that fails");
}

static char block[2 * BLOCK];

static void read_of(long got, long wanted)
{
    must(got == wanted, "read");
    used.read += (unsigned long long)got;
}

static void wrote(long put, long wanted)
{
    must(put == wanted, "write");
    used.written += (unsigned long long)put;
}

static void use_files(int count)
{
    int file = memfd_create("uses", 0), other = memfd_create("uses too", 0);
    struct iovec both[2] = {{block, BLOCK}, {block + BLOCK, 11}};
    must(file >= 0 && other >= 0, "memfd_create");
    for (int k = 0; k < count; k++) {
        off_t start = 0;
        wrote(pwrite(file, block, BLOCK, 0), BLOCK);
        wrote(pwritev(file, both, 2, 0), BLOCK + 11);
        must(!lseek(file, 0, SEEK_SET) && !lseek(other, 0, SEEK_SET), "lseek");
        wrote(write(file, block, BLOCK), BLOCK);
        wrote(writev(other, both, 2), BLOCK + 11);
        must(!lseek(file, 0, SEEK_SET) && !lseek(other, 0, SEEK_SET), "lseek");
        read_of(read(file, block, BLOCK - 1), BLOCK - 1);
        read_of(pread(file, block, 13, 1), 13);
        read_of(readv(other, both, 2), BLOCK + 11);
        read_of(preadv(other, both, 1, 0), BLOCK);
        must(read(-1, block, BLOCK) < 0 && read(other, block, 0) == 0, "reading nothing");
        must(sendfile(other, file, &start, 1000) == 1000, "sendfile");
        used.read += 1000;
        used.written += 1000;
    }
}

static int udp(struct sockaddr_in *address)
{
    socklen_t length = sizeof(*address);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    must(fd >= 0 && !bind(fd, (struct sockaddr *)address, length) && !getsockname(fd, (struct sockaddr *)address, &length), "socket");
    return fd;
}

static void sent(long bytes)
{
    must(bytes > 0, "send");
    used.sent += (unsigned long long)bytes;
}

static void received(long bytes)
{
    must(bytes > 0, "receive");
    used.received += (unsigned long long)bytes;
}

static void use_sockets(int count)
{
    static struct mmsghdr messages[MESSAGES];
    struct sockaddr_in one, other;
    int from = udp(&one), to = udp(&other);
    struct iovec part = {block, MESSAGE};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    must(!connect(from, (struct sockaddr *)&other, sizeof(other)), "connect");
    for (int k = 0; k < MESSAGES; k++)
        messages[k].msg_hdr = message;
    for (int k = 0; k < count; k++) {
        sent(send(from, block, 101, 0));
        received(recv(to, block, BLOCK, 0));
        sent(sendto(from, block, 103, 0, (struct sockaddr *)&other, sizeof(other)));
        received(recvfrom(to, block, 50, 0, NULL, NULL)); /* the rest is gone */
        sent(sendmsg(from, &message, 0));
        received(recvmsg(to, &message, 0));
        must(recv(to, block, BLOCK, MSG_DONTWAIT) < 0, "receiving nothing");
        for (int done = 0, more; done < MESSAGES; done += more) { /* no more at a time than the socket has room for */
            more = MESSAGES / 2;
            must(sendmmsg(from, messages + done, (unsigned)more, 0) == more, "sendmmsg");
            must(recvmmsg(to, messages + done, (unsigned)more, 0, NULL) == more, "recvmmsg");
            used.sent += (unsigned long long)more * MESSAGE;
            used.received += (unsigned long long)more * MESSAGE;
        }
        wrote(write(from, block, 3), 3); /* which the kernel counts as written */
        read_of(read(to, block, BLOCK), 3);
    }
}

static void wait_for_a_byte(void)
{
    char byte;
    if (read(0, &byte, 1) < 0)
        refuse("standard input: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {{"cpu-ms", 1, 0, 'c'}, {"threads", 1, 0, 't'}, {"pages", 1, 0, 'p'}, {"files", 1, 0, 'f'},
                                            {"sockets", 1, 0, 's'}, {"populate", 1, 0, 'P'}, {"exec", 1, 0, 'x'}, {0}};
    static char line[4096];
    long threads = 0, pages = 0, files = 0, sockets = 0, populate = 0;
    char *program = NULL;
    for (int c; (c = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        switch (c) {
        case 'c': cpu_ns_per_thread = strtoull(optarg, NULL, 10) * 1000000; break;
        case 't': threads = atol(optarg); break;
        case 'p': pages = atol(optarg); break;
        case 'f': files = atol(optarg); break;
        case 's': sockets = atol(optarg); break;
        case 'P': populate = atol(optarg); break;
        case 'x': program = optarg; break;
        default: return 2;
        }
    }
    char *stacks = mmap(NULL, (size_t)(threads + 1) * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(stacks != MAP_FAILED, "mmap");

    wait_for_a_byte();
    if (threads)
        burn_in_threads((int)threads, stacks);
    else
        burn(NULL);
    if (pages)
        use_memory((size_t)pages);
    use_files((int)files);
    if (sockets)
        use_sockets((int)sockets);
    if (populate)
        touch(map((size_t)populate * 4096, 0), (size_t)populate); /* kept: it takes long to end */

    struct rusage self;
    getrusage(RUSAGE_SELF, &self);
    int length = snprintf(line, sizeof(line),
                          "{\"workload\": \"uses\", \"pid\": %d, \"mapped_bytes\": %llu, \"unmapped_bytes\": %llu, \"brk_grown_bytes\": %llu, "
                          "\"brk_shrunk_bytes\": %llu, \"touched_pages\": %llu, \"bytes_read\": %llu, \"bytes_written\": %llu, "
                          "\"bytes_received\": %llu, \"bytes_sent\": %llu, \"faults\": %ld, \"voluntary\": %ld, \"involuntary\": %ld}\n",
                          getpid(), used.mapped, used.unmapped, used.grown, used.shrunk, used.touched, used.read, used.written, used.received,
                          used.sent, self.ru_minflt + self.ru_majflt, self.ru_nvcsw, self.ru_nivcsw);
    must(write(1, line, (size_t)length) == length, "standard output");
    wait_for_a_byte();
    if (program)
        execl(program, program, NULL);
    return 0;
}
