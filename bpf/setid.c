/* setuid, setgid, setreuid, setregid, setresuid, setresgid, setfsuid, setfsgid. None has more than three arguments: the others keep the ids before. */

#define NO_ID -1

static __always_inline void setid_before(struct call *call, u32 real, u32 effective, u32 saved)
{
    u64 cred = FIELD(u64, current_task(), TASK_CRED);
    ARG(3) = FIELD(u32, cred, real);
    ARG(4) = FIELD(u32, cred, effective);
    ARG(5) = FIELD(u32, cred, saved);
}

static __always_inline void setid_exit(void *ctx, struct call *call, s64 ret, u32 name, u32 real, u32 effective, u32 saved, u32 filesystem)
{
    struct setid *event = setid_begin(call, ret);
    if (!event)
        return;
    event->call = name;
    event->real = real;
    event->effective = effective;
    event->saved = saved;
    event->filesystem = filesystem;
    event->real_before = ARG(3);
    event->effective_before = ARG(4);
    event->saved_before = ARG(5);
    setid_submit(ctx);
}

ENTER(setid, setuid) { setid_before(call, CRED_UID, CRED_EUID, CRED_SUID); }
ENTER(setid, setreuid) { setid_before(call, CRED_UID, CRED_EUID, CRED_SUID); }
ENTER(setid, setresuid) { setid_before(call, CRED_UID, CRED_EUID, CRED_SUID); }
ENTER(setid, setfsuid) { setid_before(call, CRED_UID, CRED_EUID, CRED_SUID); }
ENTER(setid, setgid) { setid_before(call, CRED_GID, CRED_EGID, CRED_SGID); }
ENTER(setid, setregid) { setid_before(call, CRED_GID, CRED_EGID, CRED_SGID); }
ENTER(setid, setresgid) { setid_before(call, CRED_GID, CRED_EGID, CRED_SGID); }
ENTER(setid, setfsgid) { setid_before(call, CRED_GID, CRED_EGID, CRED_SGID); }

EXIT(setid, setuid) { setid_exit(ctx, call, ret, 1, NO_ID, ARG(0), NO_ID, NO_ID); }
EXIT(setid, setgid) { setid_exit(ctx, call, ret, 2, NO_ID, ARG(0), NO_ID, NO_ID); }
EXIT(setid, setreuid) { setid_exit(ctx, call, ret, 3, ARG(0), ARG(1), NO_ID, NO_ID); }
EXIT(setid, setregid) { setid_exit(ctx, call, ret, 4, ARG(0), ARG(1), NO_ID, NO_ID); }
EXIT(setid, setresuid) { setid_exit(ctx, call, ret, 5, ARG(0), ARG(1), ARG(2), NO_ID); }
EXIT(setid, setresgid) { setid_exit(ctx, call, ret, 6, ARG(0), ARG(1), ARG(2), NO_ID); }
EXIT(setid, setfsuid) { setid_exit(ctx, call, ret, 7, NO_ID, NO_ID, NO_ID, ARG(0)); }
EXIT(setid, setfsgid) { setid_exit(ctx, call, ret, 8, NO_ID, NO_ID, NO_ID, ARG(0)); }
