"""Options and arguments that are secrets with some programs and something harmless with others: `-p` is a password for mysql and a port for ssh."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from infrasight.node.redaction.rules import NO_SECRET, NOUN, Shape

NAME = "program"
"""What the rules of this table are counted under."""


@dataclass(frozen=True)
class Program:
    """What is secret with some programs. `when`: only where this is among the arguments before it."""

    names: frozenset[bytes]
    rule: Shape
    when: re.Pattern[bytes] | None = None


def _value(short: bytes, long: bytes = b"", before: bytes = b"", *, apart: bool = True) -> bytes:
    """The value of an option: behind a `short` one in the same argument or (`apart`) the next, behind a `long` one with `=` or in the next.
    `before` is what comes before the secret in it."""
    options = [rb"(?:%s)%s" % (short, rb"(?:\0(?!-)|=)?" if apart else b"")] if short else []
    options += [rb"(?:%s)(?:=|\0(?!-))" % long] if long else []
    return rb"\0(?:" + rb"|".join(options) + rb")" + before + rb"(?P<secret>" + NO_SECRET + rb"[^\0]++)"


_USER = rb"[^\0:]{0,256}+:"
_LOGIN = rb"\0login(?=\0)"
_KEYVAULT = rb"\0keyvault\0secret\0set(?=\0)"
_NO_PORT = rb"(?![\d.:]{1,60}(?:/\w{1,10})?(?:\0|\Z))"
_PASSWORD_OF_MYSQL = rb"\0-p(?:\0(?!-)" + _NO_PORT + rb")?(?P<secret>" + NO_SECRET + rb"[^\0]++)"
_LAST = rb"(?<=\0)(?P<secret>(?!-)[^\0]++)\Z"
_FLAGS_OF_CURL = rb"-[#0-9aBfgGiIjJkLlMnNOpqRsSvVZ]{0,12}"
_TABLE: tuple[tuple[str, bytes, bytes | None], ...] = (
    (
        "mysql mysqldump mysqladmin mysqlimport mysqlshow mysqlcheck mysqlpump mysqlbinlog mysqlsh mycli mariadb mariadb-dump mariadb-admin "
        "mariadb-import mariadb-show mariadb-check mariadb-binlog mariabackup xtrabackup mydumper myloader",
        _PASSWORD_OF_MYSQL,
        None,
    ),
    ("mongo mongosh mongodump mongorestore mongoexport mongoimport mongostat mongotop mongofiles", _value(rb"-p"), None),
    ("redis-cli valkey-cli redis-benchmark", _value(rb"-a"), None),
    ("sshpass", rb"\A(?:\0-(?:v|P\0?[^\0]++)){0,4}\0-p\0?(?P<secret>[^\0]++)", None),
    ("curl", _value(_FLAGS_OF_CURL + rb"[uU]", rb"--(?:proxy-)?user", _USER), None),
    ("curl", _value(_FLAGS_OF_CURL + rb"E", rb"--(?:proxy-)?cert", rb"[^\0:]{0,1024}+:"), None),
    ("curl", _value(_FLAGS_OF_CURL + rb"b", rb"--cookie", rb"[^\0=]{1,256}+="), None),
    ("curl", _value(b"", rb"--oauth2-bearer"), None),
    ("docker podman buildah nerdctl helm oc az azure.cli oras regctl crane ibmcloud cf", _value(rb"-p"), _LOGIN),
    ("ldapsearch ldapadd ldapmodify ldapdelete ldapcompare ldapwhoami ldapmodrdn ldapexop", _value(rb"-w"), None),
    ("ldappasswd", _value(rb"-[was]"), None),
    ("smbclient rpcclient smbget smbcacls smbcquotas smbtree winexe", _value(rb"-U", rb"--user", rb"[^\0%]{0,256}+%"), None),
    ("openssl", _value(b"", rb"-pass(?:in|out)?", rb"pass:"), None),
    ("openssl", _value(rb"-[kK]"), rb"\0(?:enc|aes\S{0,20}|des\S{0,20}|camellia\S{0,20}|chacha20)(?=\0)"),
    ("openssl", rb"\0(?P<secret>(?!-)[^\0]++)", rb"\0passwd(?=\0)"),
    ("ssh-keygen", _value(rb"-[NP]"), None),
    ("zip unzip zipcloak", _value(rb"-P"), None),
    ("7z 7za 7zr 7zz", _value(rb"-p", apart=False), None),
    ("rar unrar", _value(rb"-h?p(?!-)", apart=False), None),
    ("useradd usermod", _value(rb"-p"), None),
    ("htpasswd", _LAST, rb"\0-[A-Za-z]{0,8}b[A-Za-z]{0,8}(?=\0)"),
    ("wpa_passphrase", rb"\0[^\0]++\0(?P<secret>[^\0]++)", None),
    ("vault", rb"\0(?P<secret>(?!-)[^\0=]++)\Z", _LOGIN),
    ("rabbitmqctl", rb"\0(?:add_user|change_password|authenticate_user)\0[^\0]++\0(?P<secret>[^\0]++)", None),
    ("az azure.cli", _value(b"", rb"--value"), _KEYVAULT),
    ("aws", _value(b"", rb"--value"), rb"\0put-parameter(?=\0)"),
    ("mosquitto_pub mosquitto_sub", _value(rb"-P"), None),
    ("nmcli rclone", rb"\0(?:[\w.-]{0,60}?" + NOUN + rb"|[\w-]{1,40}+\.psk)\0(?P<secret>[^\0]++)", None),
    ("sqlplus expdp impdp sqlldr", rb"\0(?:userid=)?[^\0/@=-][^\0/@=]{0,64}+/(?P<secret>[^\0@]++)", None),
    ("sqlcmd bcp isql osql ipmitool", _value(rb"-P"), None),
    ("cqlsh rdesktop smbmap ncftpput ncftpget rabbitmqadmin", _value(rb"-p"), None),
    ("xfreerdp wlfreerdp", rb"\0/p:(?P<secret>[^\0]++)", None),
    ("lftp", _value(rb"-u", b"", rb"[^\0,]{0,256}+,"), None),
    ("snmpget snmpwalk snmpbulkwalk snmpbulkget snmpset snmptrap snmptable", _value(rb"-[cAX]"), None),
    ("plink pscp psftp", _value(b"", rb"-pw"), None),
)
"""Programs, what is secret with them (behind the program's own name), and what must come before it."""


_HINTS = {_LOGIN: (b"login",), _KEYVAULT: (b"keyvault",)}
"""Where what must come before says more than the program's name."""


def _program(names: str, pattern: bytes, when: bytes | None) -> Program:
    each = frozenset(names.encode().split())
    hints = _HINTS.get(when or b"") or tuple(sorted(each))
    return Program(each, Shape(NAME, hints, re.compile(pattern, re.DOTALL)), re.compile(when) if when else None)


PROGRAMS: dict[bytes, list[Program]] = {}
"""By name."""
for _program_of_table in (_program(*row) for row in _TABLE):
    for _name in sorted(_program_of_table.names):
        PROGRAMS.setdefault(_name, []).append(_program_of_table)

RUNNERS = frozenset(
    b"sudo sshpass doas su runuser env nice ionice chrt taskset timeout nohup setsid setpriv chroot nsenter unshare strace ltrace time xargs watch "
    b"stdbuf flock systemd-run systemd-inhibit parallel busybox docker podman nerdctl docker-compose kubectl oc crictl ctr runc lxc incus machinectl "
    b"ssh tini dumb-init catatonit gosu su-exec s6-setuidgid chpst sh bash dash ash zsh ksh mksh fish python perl ruby node php exec command "
    b"proxychains4 torsocks firejail bwrap fakeroot prlimit numactl cgexec find ip script".split()
)
"""Programs that run the one that is named in their arguments."""
SHELLS = frozenset(b"sh bash dash ash zsh ksh mksh fish su runuser script".split())
"""Programs that take a command line as the argument of `-c`."""
REMOTE = frozenset(b"ssh watch tmux screen parallel".split())
"""Programs whose arguments with spaces in them are command lines."""


def name_of(word: bytes) -> bytes:
    """What a program is called, by its path: without directories, the dash of a login shell, and an interpreter's version (`python3.11`)."""
    name = word.rsplit(b"/", 1)[-1].removeprefix(b"-").lower()
    return name.rstrip(b".0123456789") if name.startswith((b"python", b"perl", b"ruby", b"php")) else name


def programs_in(words: Sequence[bytes]) -> dict[bytes, int]:
    """What may be programs, and the place where each is named first: the first word, and, behind one that runs others, those that are known here."""
    start = 0
    while start < len(words) - 1 and b"=" in words[start]:  # VARIABLE=value before a command
        start += 1
    found = {name_of(words[start]): start} if words else {}
    if not found.keys() & RUNNERS:
        return found
    for place in range(start + 1, len(words)):
        name = name_of(words[place])
        if name in PROGRAMS or name in SHELLS or name in REMOTE:
            found.setdefault(name, place)
    return found
