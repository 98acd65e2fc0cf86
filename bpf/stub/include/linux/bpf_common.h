/* Classic BPF opcodes: BCC includes them, tracing does not use them. */
