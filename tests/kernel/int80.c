/* One 32-bit system call from a 64-bit program: number, then arguments: numbers, @string, or #n,n,n for words in memory. Prints what it returns. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static char *low;

static uint32_t argument(char *text)
{
    char *at = low;
    if (*text == '@') {
        low += strlen(strcpy(low, text + 1)) + 1;
        return (uintptr_t)at;
    }
    if (*text != '#')
        return strtoul(text, 0, 0);
    for (char *word = strtok(text + 1, ","); word; word = strtok(0, ","), low += 4)
        *(uint32_t *)low = strtoul(word, 0, 0);
    return (uintptr_t)at;
}

int main(int count, char **words)
{
    uint32_t args[7] = {0};
    int ret;
    register uint32_t last asm("r8");
    low = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    for (int i = 1; i < count && i < 8; i++)
        args[i - 1] = argument(words[i]);
    last = args[6];
    asm volatile("push %%rbp; mov %%r8d, %%ebp; int $0x80; pop %%rbp"
                 : "=a"(ret)
                 : "a"(args[0]), "b"(args[1]), "c"(args[2]), "d"(args[3]), "S"(args[4]), "D"(args[5]), "r"(last)
                 : "memory");
    printf("%ld\n", (uint32_t)ret > -4096u ? (long)ret : (long)(uint32_t)ret);
    return 0;
}
