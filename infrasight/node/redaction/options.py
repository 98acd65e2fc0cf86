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
_UNTIL_AT = rb"[^\0\s/@:]{1,256}+:(?P<secret>[^\0\s/@]++)(?=@)"
_LOGIN = rb"\0login(?=\0)"
_KEYVAULT = rb"\0keyvault\0secret\0set(?=\0)"
_SECRET_SET = rb"\0secret\0set(?=\0)"
_SECRETS_SET = rb"\0secrets\0(?:set|import)(?=\0)"
_ALIAS_SET = rb"\0alias\0set(?=\0)"
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
    ("redis-cli valkey-cli", rb"\0(?i:auth)\0(?:[^\0]++\0)?(?P<secret>[^\0]++)\Z", None),
    ("redis-cli valkey-cli", rb"\0>(?P<secret>[^\0]++)", None),
    ("mysqladmin mariadb-admin", rb"\0(?:old-)?password\0(?P<secret>[^\0]++)\Z", None),
    ("sshpass", rb"\A(?:\0-(?:v|P\0?[^\0]++)){0,4}\0-p\0?(?P<secret>[^\0]++)", None),
    ("curl", _value(_FLAGS_OF_CURL + rb"[uU]", rb"--(?:proxy-)?user", _USER), None),
    ("curl", _value(_FLAGS_OF_CURL + rb"E", rb"--(?:proxy-)?cert", rb"[^\0:]{0,1024}+:"), None),
    ("curl", _value(_FLAGS_OF_CURL + rb"b", rb"--cookie", rb"[^\0=]{1,256}+="), None),
    ("curl", _value(b"", rb"--oauth2-bearer"), None),
    ("curl wget", rb"\0(?:" + _FLAGS_OF_CURL + rb"x\0?|--(?:pre)?proxy[=\0])?" + _UNTIL_AT, None),
    ("http https", _value(rb"-a", rb"--auth", rb"(?:[^\0:]{0,256}+:)?"), None),
    ("http https", rb"\0[\w-]{0,80}?(?:" + NOUN + rb"|(?i:authorization|cookie)):(?!/)(?P<secret>[^\0]++)", None),
    ("docker podman buildah nerdctl skopeo helm oc az azure.cli oras regctl crane ibmcloud cf", _value(rb"-p"), _LOGIN),
    ("ctr etcdctl", _value(rb"-u", rb"--user", _USER), None),
    ("crictl", _value(b"", rb"--auth"), None),
    ("ldapsearch ldapadd ldapmodify ldapdelete ldapcompare ldapwhoami ldapmodrdn ldapexop", _value(rb"-w"), None),
    ("ldappasswd", _value(rb"-[was]"), None),
    ("smbclient rpcclient smbget smbcacls smbcquotas smbtree winexe", _value(rb"-U", rb"--user", rb"[^\0%]{0,256}+%"), None),
    ("openssl", _value(b"", rb"-pass(?:in|out)?", rb"pass:"), None),
    ("openssl", _value(rb"-[kK]"), rb"\0(?:enc|aes\S{0,20}|des\S{0,20}|camellia\S{0,20}|chacha20)(?=\0)"),
    ("openssl", rb"\0(?P<secret>(?!-)[^\0]++)", rb"\0passwd(?=\0)"),
    ("openssl", _value(b"", rb"-hmac"), None),
    ("openssl", _value(b"", rb"-macopt", rb"(?:hex)?key:"), None),
    ("ssh-keygen", _value(rb"-[NP]"), None),
    ("zip unzip zipcloak", _value(rb"-[A-Za-z0-9]{0,12}P"), None),
    ("pdftotext pdftoppm pdfinfo pdfimages", _value(b"", rb"-[uo]pw"), None),
    ("qpdf", rb"\0--encrypt\0(?P<secret>[^\0]++)", None),
    ("qpdf", rb"\0--encrypt\0[^\0]*+\0(?P<secret>[^\0]++)", None),
    ("mkpasswd", _LAST, None),
    ("7z 7za 7zr 7zz", _value(rb"-p", apart=False), None),
    ("rar unrar", _value(rb"-h?p(?!-)", apart=False), None),
    ("useradd usermod", _value(rb"-[mMrlLNUoD]{0,8}p"), None),
    ("htpasswd", _LAST, rb"\0-[A-Za-z]{0,8}b[A-Za-z]{0,8}(?=\0)"),
    ("wpa_passphrase", rb"\0[^\0]++\0(?P<secret>[^\0]++)", None),
    ("vault cargo bw", rb"\0(?P<secret>(?!-)[^\0=]++)\Z", _LOGIN),
    ("vault", rb"\0operator\0unseal\0(?P<secret>(?!-)[^\0]++)", None),
    ("bw", rb"\0unlock\0(?P<secret>(?!-)[^\0]++)", None),
    ("gh", _value(rb"-b", rb"--body"), _SECRET_SET),
    ("fly flyctl", rb"\0[A-Za-z_]\w{0,80}+=(?P<secret>[^\0]++)", _SECRETS_SET),
    ("mc", rb"(?<=\0)(?:[^\0]++\0){3}(?P<secret>[^\0]++)", _ALIAS_SET),
    ("ngrok", rb"\0(?:add-)?authtoken\0(?P<secret>[^\0]++)", None),
    ("composer poetry", rb"\0http-basic\.[^\0]++\0[^\0]++\0(?P<secret>[^\0]++)", None),
    ("composer poetry", rb"\0(?:github-oauth|gitlab-token|bearer|pypi-token)\.[^\0]++\0(?P<secret>[^\0]++)", None),
    ("rabbitmqctl", rb"\0(?:add_user|change_password|authenticate_user)\0[^\0]++\0(?P<secret>[^\0]++)", None),
    ("az azure.cli", _value(b"", rb"--value"), _KEYVAULT),
    ("aws", _value(b"", rb"--value"), rb"\0put-parameter(?=\0)"),
    ("mosquitto_pub mosquitto_sub", _value(rb"-P"), None),
    ("nmcli rclone", rb"\0(?:[\w.-]{0,60}?" + NOUN + rb"|[\w-]{1,40}+\.psk)\0(?P<secret>[^\0]++)", None),
    ("sqlplus expdp impdp sqlldr", rb"\0(?:userid=)?[^\0/@=-][^\0/@=]{0,64}+/(?P<secret>[^\0@]++)", None),
    ("sqlcmd bcp isql osql ipmitool", _value(rb"-P"), None),
    (
        "cqlsh rdesktop smbmap ncftpput ncftpget rabbitmqadmin twine cypher-shell crackmapexec nxc evil-winrm hydra medusa youtube-dl yt-dlp "
        "elasticsearch-users poetry",
        _value(rb"-p"),
        None,
    ),
    ("influx", _value(rb"-t"), None),
    ("transmission-remote", _value(rb"-n", b"", _USER), None),
    (
        "impacket-psexec impacket-smbexec impacket-wmiexec impacket-secretsdump impacket-mssqlclient psexec.py smbexec.py wmiexec.py secretsdump.py",
        rb"\0(?:[^\0/@:]{1,64}+/)?" + _UNTIL_AT,
        None,
    ),
    ("xfreerdp wlfreerdp", rb"\0/p:(?P<secret>[^\0]++)", None),
    ("lftp", _value(rb"-u", b"", rb"[^\0,]{0,256}+,"), None),
    ("snmpget snmpwalk snmpbulkwalk snmpbulkget snmpset snmptrap snmptable", _value(rb"-[cAX]"), None),
    ("plink pscp psftp", _value(b"", rb"-pw"), None),
)
"""Programs, what is secret with them (behind the program's own name), and what must come before it."""


_HINTS = {
    _LOGIN: (b"login",),
    _KEYVAULT: (b"keyvault",),
    _SECRET_SET: (b"secret",),
    _SECRETS_SET: (b"secrets",),
    _ALIAS_SET: (b"alias",),
}
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
    b"proxychains proxychains4 torsocks firejail bwrap fakeroot prlimit numactl cgexec find ip script".split()
)
"""Programs that run the one that is named in their arguments."""
SHELLS = frozenset(b"sh bash dash ash zsh ksh mksh fish su runuser script".split())
"""Programs that take a command line as the argument of `-c`."""
REMOTE = frozenset(b"ssh watch tmux screen parallel".split())
"""Programs whose arguments with spaces in them are command lines."""

_ECHO = frozenset((b"echo", b"printf"))
_READERS = frozenset(b"chpasswd chgpasswd passwd smbpasswd cryptsetup kinit".split())
_READ = frozenset((b"--password-stdin", b"--passwd-stdin", b"--pass-stdin", b"--with-token", b"--passphrase-fd"))
_READ_BY_SUDO = re.compile(rb"-[A-Za-z]{0,8}S[A-Za-z]{0,8}|--stdin")
READ_HINTS = (b"|sudo", b"| sudo", b"cryptsetup", b"kinit")
"""Hints, lower-case, at programs that read a secret; the others have one in what they are called."""


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


def prints(words: Sequence[bytes]) -> bool:
    """Whether the command prints what it is given last."""
    return len(words) > 1 and name_of(words[0]) in _ECHO


def reads_secret(words: Sequence[bytes]) -> bool:
    """Whether the command takes what is piped into it for a secret: `sudo -S`, `chpasswd`, `docker login --password-stdin`."""
    name = name_of(words[0])
    if name == b"sudo" and any(map(_READ_BY_SUDO.fullmatch, words)):
        return True
    return not _READ.isdisjoint(words) or name in _READERS or (name in RUNNERS and any(name_of(word) in _READERS for word in words))
