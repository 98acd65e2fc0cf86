/* How often each process makes each system call, those of 32-bit programs under the numbers that 64-bit ones have, if any. */

RAW(syscall_freq, sys_enter)
{
    u64 task = current_task();
    u64 number = ctx->args[1];
#ifdef COMPAT_CALLS
    if (is_compat(task))
        number = compat_number(number, REGS(ctx));
#endif
    if (number >= CALL_NUMBERS)
        return 0;
    struct syscall_freq *account = syscall_freq_account(task, true);
    if (account)
        __sync_fetch_and_add(&account->calls[number], 1);
    return 0;
}

RAW(syscall_freq, sched_process_exit)
{
    u64 task = current_task();
    if (!is_last_thread(ctx))
        return 0;
    syscall_freq_named(task);
    syscall_freq_settle(task);
    return 0;
}
