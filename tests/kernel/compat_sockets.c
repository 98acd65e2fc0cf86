/* The calls about sockets as a 32-bit program makes them: int $0x80 with everything in memory that 32 bits reach. Directly, and through socketcall. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static int call(long number, long a, long b, long c, long d)
{
    long ret;
    asm volatile("int $0x80" : "=a"(ret) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d) : "memory", "r8", "r9", "r10", "r11");
    return (int)ret;
}

static unsigned *words;

/* Several calls through one, with their arguments in memory. */
static int socketcall(long which, unsigned a, unsigned b, unsigned c)
{
    words[0] = a, words[1] = b, words[2] = c, words[3] = 0;
    return call(102, which, (long)words, 0, 0);
}

int main(void)
{
    char *low = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    unsigned char *address = (unsigned char *)low + 64, *length = (unsigned char *)low + 128;
    words = (unsigned *)low;
    if (call(20, 0, 0, 0, 0) <= 0)
        return 77; /* this kernel knows no 32-bit calls */
    for (int turn = 0; turn < 2; turn++) {
        memset(address, 0, 16);
        address[0] = 2, address[4] = 127, address[7] = 1;
        int server = turn ? socketcall(1, 2, 1, 0) : call(359, 2, 1, 0, 0);
        int client = turn ? socketcall(1, 2, 1, 0) : call(359, 2, 1, 0, 0);
        int bound = turn ? socketcall(2, server, (long)address, 16) : call(361, server, (long)address, 16, 0);
        int listens = turn ? socketcall(4, server, 9, 0) : call(363, server, 9, 0, 0);
        length[0] = 16, length[1] = length[2] = length[3] = 0;
        call(367, server, (long)address, (long)length, 0); /* getsockname */
        int connected = turn ? socketcall(3, client, (long)address, 16) : call(362, client, (long)address, 16, 0);
        int accepted = turn ? socketcall(5, server, 0, 0) : call(364, server, 0, 0, 0x800);
        int raw = turn ? socketcall(1, 2, 3, 1) : call(359, 2, 3, 1, 0);
        int copy = call(63, client, 0, 0, 0);
        call(6, 0, 0, 0, 0);
        int other = call(turn ? 55 : 221, client, 0, 0, 0); /* fcntl and fcntl64: F_DUPFD */
        printf("[%d, %d, %d, %d, %d, %d, %d, %d, %d, %d]\n", server, client, bound, listens, connected, accepted, raw, copy, other,
               address[2] << 8 | address[3]);
        fflush(stdout);
    }
    return 0;
}
