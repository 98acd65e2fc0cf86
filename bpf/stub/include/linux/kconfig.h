/* BCC includes this before everything and refuses to go on without the options below. Whether the kernel has them is found by trying. */
#pragma once
#define CONFIG_BPF_SYSCALL 1
