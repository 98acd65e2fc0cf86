"""What secrets look like in command lines and URLs: a table of patterns. `command_line` and `redaction` follow it, docs/REDACTION.md explains it.

A command line is looked at as the kernel has it: its arguments with a NUL between them, so that one pattern can say "the argument behind this one".
A pattern calls what is masked `secret`, and has no NUL in that. Each takes time in proportion to the text, whatever is in it: what can be of any
length begins behind something that ended the attempt before, or is not given back once matched (`++`), or is bounded. (`++` stands behind sets of
bytes only: behind groups, Python before 3.11.5 gets it wrong, gh-106052.)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

MASK = b"***"
"""What stands where a secret was."""
_NAME_MOST = 48
"""Bytes at the end of a name by which it is known."""


class Rule(Protocol):
    """Secrets of one shape. `hints` (lower-case): one of them is in every text that it matches."""

    @property
    def name(self) -> str: ...

    @property
    def hints(self) -> tuple[bytes, ...]: ...

    def masked(self, text: bytes, counts: Counter[str]) -> bytes:
        """`text` without the secrets; each adds one to `counts` under the rule's name."""


@dataclass(frozen=True)
class Shape:
    """Secrets that a pattern knows."""

    name: str
    hints: tuple[bytes, ...]
    pattern: re.Pattern[bytes]

    def masked(self, text: bytes, counts: Counter[str]) -> bytes:
        return _without([match.span("secret") for match in self.pattern.finditer(text)], text, self.name, counts)


@dataclass(frozen=True)
class Named:
    """Secrets that are known by what they are called: `names` finds what may be a `name`, and `value` matches right behind that."""

    name: str
    hints: tuple[bytes, ...]
    names: re.Pattern[bytes]
    value: re.Pattern[bytes]
    is_secret: Callable[[bytes], bool]

    def masked(self, text: bytes, counts: Counter[str]) -> bytes:
        spans, done = [], 0
        for match in self.names.finditer(text):
            if match.start() >= done and self.is_secret(match["name"][-_NAME_MOST:]) and (value := self.value.match(text, match.end())):
                spans.append(value.span("secret"))
                done = value.end()
        return _without(spans, text, self.name, counts)


def _without(spans: Sequence[tuple[int, int]], text: bytes, name: str, counts: Counter[str]) -> bytes:
    parts, done = [], 0
    for start, end in spans:
        if text[start:end] != MASK:
            counts[name] += 1
            parts += [text[done:start], MASK]
            done = end
    return b"".join([*parts, text[done:]]) if parts else text


class Table:
    """Rules, followed in their order. Which of them can matter is found by their hints, which costs little and is enough for nearly every text."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._by_hint: dict[bytes, list[int]] = {}
        for number, each in enumerate(self.rules):
            for hint in each.hints:
                self._by_hint.setdefault(hint, []).append(number)

    def follow(self, text: bytes, counts: Counter[str]) -> bytes:
        """`text` without what any of the rules masks."""
        low = text.lower()
        for number in sorted({number for hint, numbers in self._by_hint.items() if hint in low for number in numbers}):
            text = self.rules[number].masked(text, counts)
        return text


_KEYS = (
    rb"(?:admin|aes|api|access|account|app|application|auth|client|consumer|decryption|deploy|encryption|hmac|license|master|preshared|private|secret"
    rb"|session|shared|sharedaccess|signing|sse-c|storage|subscription)"
)
_WHOSE = rb"(?:account|admin|bind|db|ftp|http|key|ldap|login|mail|new|old|proxy|root|smtp|sql|ssh|store|user|vnc)"
NOUN = (
    rb"(?:(?i:(?:pass(?:word|wd|phrase|code)|secret|token)(?:[-_]?[0-9]{1,2})?|" + _KEYS + rb"[-_.]?key|" + _WHOSE + rb"[-_]?(?:pass|pw)"
    rb"|secret[-_](?:string|key[-_]base)|requirepass|masterauth|[_-]psk|_auth|(?<![a-z])(?:pass|psk|pw)|[a-z][_-]pwd)|(?<=[a-z])(?:Pass|Pwd)"
    rb"|(?<![A-Za-z])[Pp]wd)"
)
"""What the name of a secret ends in: `--db-password`, `clientSecret`, `AWS_SECRET_ACCESS_KEY`, `MYSQL_PWD`, `password2`; not `PWD`, `bypass`,
`token-file`."""
_NOUNS = "pass secret token key masterauth psk _auth pw"
"""Hints at those."""
_NO_VALUE = (
    rb"(?!-|(?i:ask|change|disable|enable|force|forget|generate|get|list|no|print|prompt|read|remember|require|reset|save|show|skip|use|with"
    rb"|without)[-_])"
)
"""What the name of an option begins with that takes no secret: `--no-password`, `--ask-pass`, `--with-token`."""
NO_SECRET = (
    rb"(?!(?:~|\.{1,2})?/[\w./-]{0,200}(?:\.(?:crt|env|json|key|p12|pem|pfx|pub|txt|ya?ml)|/id_\w{1,20})(?:[\0\s&;,\"'}]|\Z)"
    rb"|(?:env|file|fd|id|src|type)[:=]|(?:stdin|prompt)(?:[\0\s]|\Z)"
    rb"|(?i:true|false|yes|no|on|off|none|null)(?:[\0\s&;,\"'}]|\Z)|\$(?:\{?[A-Z_][A-Z0-9_]{0,60}(?::[-=?+])?\}?)?[\"']?(?:[\0\s]|\Z))"
)
"""What is no secret but says where it is (`/etc/ssl/my.key`, `env:NAME`, `$NAME`, the `$` of `$(...)`), or yes or no."""
_NO_NAMES = rb"(?![\[{]\s{0,4}(?:\\?[\"']|[\[\]{}]))"
"""What is no value but has names and values of its own in it: `{"secret": {"name": "x"}}`."""
_MORE = rb"[\w.\[\]-]{1,40}="
"""What comes behind a separator in a list of names and values."""
_PLAIN = rb"(?:[^\s\0\"'&;,<>]|[&;,](?!" + _MORE + rb"|[\s\0\"']|\Z))+"
"""A value among other text, without quotes."""
_OR_QUOTED = (
    rb"(?:\[\s{0,4}(?=\\?[\"']))?(?P<quote>\\?[\"'])?"
    + NO_SECRET
    + _NO_NAMES
    + rb"(?P<secret>(?(quote)(?:(?!(?P=quote))(?:\\[^\0]|[^\0]))+|"
    + _PLAIN
    + rb"))"
)

_NEXT = rb"\0(?P<secret>(?!-)" + NO_SECRET + rb"[^\0]++)"
_TO_THE_END = NO_SECRET + rb"(?P<secret>[^\0]++)"
_TO_THE_NEXT = NO_SECRET + rb"(?P<secret>(?:(?![&;,\s]\s?" + _MORE + rb")[^\0])+)"
_VARIABLE = rb"(?:\A|\0)(?P<name>[A-Z_][A-Z0-9_]*+)="
_ASSIGNMENT = rb"(?:\A|\0)(?P<name>-{0,2}" + _NO_VALUE + rb"[\w.:/\[\]@-]++)="
_PAIR = (
    rb"(?<![\w.-])(?P<name>[\w.-]++)"
    rb"(?:\]?=|\\?[\"']\s{0,4}:\s{0,4}|(?:\\?[\"'])?\]?\s{0,4}=\s{0,4}(?=[\"'])|[\"']?\s{0,4}=>\s{0,4}"
    rb"|:\s{0,4}(?=\"[^\s\0\"]{1,256}\"|'[^\s\0']{1,256}'))"
)
_COLON = rb"(?:\A|\0)(?P<name>(?:--?|/)" + _NO_VALUE + rb"[\w.-]++):(?!/|(?:env|file|stdin)(?:\0|\Z))"
_OPTION = rb"\0(?P<name>-{1,2}" + _NO_VALUE + rb"[\w.:-]++)(?=\0)"
_SETTING = rb"\0(?i:set|config(?:\0set)?)\0(?:-[^\0]{0,80}+\0){0,4}(?P<name>[^\0=]++)(?=\0)"
_PARAMETER = rb"[?&](?P<name>[\w.-]++)="
_PAIR_OF_LOGIN = rb"(?i:auth)\s{0,4}=?\s{0,4}\(\s{0,4}[\"'][^\0\"']{0,256}+[\"'],\s{0,4}[\"'](?P<secret>[^\0\"']++)"
_REGISTRY = rb"\"auth\\?\"\s{0,4}:\s{0,4}\\?\"(?P<secret>[A-Za-z0-9+/=]{12,}+)"
_USER = rb"\0--(?:auth|(?:src-|dest-)?creds)[=\0][^\0:]{0,256}+:(?P<secret>[^\0]++)"
_SQL = (
    rb"(?i:\bpassword(?:\s{1,4}for\s{1,4}[^\0=;]{1,120})?|\bidentified(?:\s{1,4}with\s{1,4}[\"'`]?\w{1,40}[\"'`]?)?\s{1,4}(?:by|as))"
    rb"(?:\s{1,4}|(?=[=(]))(?:=\s{0,4})?(?i:password\s{0,4})?(?:\(\s{0,4})?(?P<quote>[\"'])(?P<secret>(?:(?!(?P=quote))[^\0])+)"
)
_INITIAL = rb"\0(?:set-initial|reset-admin)-password\0(?P<secret>(?!-)[^\0]++)"
_CONNECTION = rb";\s{0,2}(?i:pwd)\s{0,2}=\s{0,2}(?P<secret>[^\0\s;/$][^\0;]*+)"
_LITERAL = rb"\0--from-literal[=\0][^\0=]{1,120}+=(?P<secret>[^\0]++)"

_SCHEME = rb"(?:(?i:apikey|basic|bearer|digest|key|negotiate|ntlm|token|aws4-hmac-sha256)\s{1,4})?"
_HEADERS = rb"(?i:(?:proxy-)?authorization|(?:set-)?cookie|[\w-]{0,40}?(?:token|key|secret|password|auth))"
_HYPHENATED = rb"(?i:(?:proxy-)?authorization|(?:set-)?cookie|\w{1,20}-[\w-]{0,40}?(?:token|key|secret|password|auth))"
_HEADER_OPTION = rb"\0(?:-[A-Za-z]{0,8}H\0?|--(?:proxy-)?header[=\0])" + _HEADERS + rb"\s{0,4}:\s{0,4}" + _SCHEME + rb"(?P<secret>[^\0\r\n]++)"
_HEADER_ARGUMENT = rb"(?:\A|\0)" + _HYPHENATED + rb":\s{1,4}" + _SCHEME + rb"(?P<secret>[^\0\r\n]++)"
_HEADER_INSIDE = rb"(?<=[\s\"'=])" + _HYPHENATED + rb":\s{1,4}" + _SCHEME + rb"(?P<secret>[^\0\"'\r\n]++)"
_AUTHORIZATION = (
    rb"(?i:authorization)(?:\\?[\"'])?\s{0,4}(?::|=>?)\s{0,4}(?:\\?[\"'])?" + _SCHEME + rb"(?P<secret>(?:(?!\\[\"'])[^\0\"'\r\n])+)"
)
_BEARER = rb"(?i:\bbearer)[ :=]{1,3}(?=[^\0\s]{0,64}\d)(?P<secret>[\w.~+/=-]{16,}+)"
_HEADER_HINTS = "token: key: secret: password: auth: authorization cookie"

_AUTHORITY = rb"(?<=[A-Za-z0-9+.-]):/{1,2}"
_URL_PASSWORD = _AUTHORITY + rb"[^\0\s/?#\"'@:]*+:(?P<secret>[^\0\s/?#\"']+)@"
_URL_ODD_PASSWORD = (
    _AUTHORITY + rb"[^\0\s/?#\"'@:\[]*+:(?![0-9]{0,5}[/?#])(?P<secret>[^\0\s/?#\"'@]*+[/?#][^\0\s\"'@]*+)@(?=[\w.-]++(?:[:/?\0\s\"']|\Z))"
)
"""One with what it should not have in it: a port is told apart by its digits."""
_URL_USER = _AUTHORITY + rb"(?=[^\0\s/@]{0,64}\d)(?P<secret>[\w~-]{20,}+)(?=(?::(?:x-oauth-basic|\*\*\*)?)?@)"
_URL_ONLY_USER = _AUTHORITY + rb"(?P<secret>[^\0\s/?#\"'@:]++)(?=:@)"
_URL_CUT = _AUTHORITY + rb"[^\0\s/?#\"'@:]*+:(?P<secret>[^\0\s/?#\"'@]++)\Z"
_DSN = rb"(?<=[\0=\s\"'])[\w.-]{1,64}+:(?P<secret>[^\0\s@]{1,128})@(?:tcp|unix)\("
_SECRET_NAME = re.compile(NOUN + rb"\Z")
_SECRET_PARAMETER = re.compile(rb"(?i:key|sig|signature|auth|awsaccesskeyid|x-(?:amz|goog)-(?:signature|credential))\Z")


@lru_cache(maxsize=1024)
def is_secret(name: bytes) -> bool:
    """Whether what is called so is a secret."""
    return bool(_SECRET_NAME.search(name))


@lru_cache(maxsize=1024)
def is_secret_parameter(name: bytes) -> bool:
    """The same of a parameter of a URL."""
    return bool(_SECRET_PARAMETER.match(name)) or is_secret(name)


def shape(name: str, hints: str, pattern: bytes) -> Shape:
    """A rule by its name, its hints with spaces between them, and its pattern."""
    return Shape(name, tuple(hints.encode().split()), re.compile(pattern, re.DOTALL))


def _named(name: str, names: bytes, value: bytes) -> Named:
    return Named(name, tuple(_NOUNS.encode().split()), re.compile(names), re.compile(value, re.DOTALL), is_secret)


_PARAMETER_HINTS = tuple(f"{_NOUNS} sig= signature= auth= awsaccesskeyid= x-amz- x-goog-".encode().split())
_URL: tuple[Rule, ...] = (
    shape("url", "@", _URL_PASSWORD),
    shape("url", "@", _URL_ODD_PASSWORD),
    shape("url", "@", _URL_USER),
    shape("url", ":@", _URL_ONLY_USER),
    Named("url_parameter", _PARAMETER_HINTS, re.compile(_PARAMETER), re.compile(rb"(?P<secret>[^\0\s\"'&;#]++)"), is_secret_parameter),
)
URL_RULES = Table(_URL)
"""What is masked wherever a URL can be. One slash is enough: where a path leads, two are one."""
RULES: tuple[Rule, ...] = (
    *_URL,
    shape("url", "@tcp( @unix(", _DSN),
    shape("header", _HEADER_HINTS, _HEADER_OPTION),
    shape("header", _HEADER_HINTS, _HEADER_ARGUMENT),
    shape("header", _HEADER_HINTS, _HEADER_INSIDE),
    shape("header", "authorization", _AUTHORIZATION),
    shape("header", "bearer", _BEARER),
    shape("sql", "password identified", _SQL),
    shape("option", "--auth creds", _USER),
    shape("option", "set-initial-password reset-admin-password", _INITIAL),
    shape("assignment", "auth( auth=(", _PAIR_OF_LOGIN),
    shape("assignment", "\"auth", _REGISTRY),
    shape("assignment", "pw", _CONNECTION),
    _named("variable", _VARIABLE, _TO_THE_END),
    shape("assignment", "--from-literal", _LITERAL),
    _named("assignment", _ASSIGNMENT, _TO_THE_NEXT),
    _named("assignment", _COLON, _TO_THE_END),
    _named("assignment", _PAIR, _OR_QUOTED),
    _named("option", _OPTION, _NEXT),
    _named("option", _SETTING, _NEXT),
)
"""What is masked in every command line, in this order."""
CUT_RULES: tuple[Rule, ...] = (shape("url", ":/", _URL_CUT),)
"""What else is masked in one whose end was cut off."""
