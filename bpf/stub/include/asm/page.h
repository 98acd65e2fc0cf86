/* BCC gives ring buffer sizes in pages of this many bytes (4096 on x86-64; arm64 kernels pass theirs as BPF_PAGE_SIZE). */
#pragma once
#ifndef BPF_PAGE_SIZE
#define BPF_PAGE_SIZE 4096
#endif
#define PAGE_SIZE BPF_PAGE_SIZE
