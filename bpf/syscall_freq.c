/* How often each process makes each system call, those of 32-bit programs under the numbers that 64-bit ones have, if any. */

EVERY(syscall_freq, call)
{
    u64 call = number;
    struct syscall_freq *account = call < CALL_NUMBERS ? syscall_freq_account(task, true) : 0;
    BOUND(call, CALL_NUMBERS - 1);
    if (account)
        __sync_fetch_and_add(&account->calls[call], 1);
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
