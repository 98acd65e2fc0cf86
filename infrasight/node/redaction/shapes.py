"""Keys that tell by their beginning what they are. They are masked wherever they stand; the beginning stays, and tells what was there."""

from __future__ import annotations

import re

from infrasight.node.redaction.rules import Rule, Shape

_SHAPES: tuple[tuple[str, str, bytes, int], ...] = (
    ("aws", "AKIA ASIA", rb"[A-Z0-9]", 16),
    ("github", "ghp_ gho_ ghu_ ghs_ ghr_", rb"[A-Za-z0-9]", 30),
    ("github", "github_pat_", rb"\w", 22),
    ("gitlab", "glpat- glptt- gldt- glrt- glcbt- gloas- glsoat- glft- glimt- glagent-", rb"[\w.-]", 20),
    ("slack", "xoxa- xoxb- xoxc- xoxd- xoxe- xoxe.xoxp- xoxp- xoxr- xoxs- xapp-", rb"[\w-]", 10),
    ("slack", "hooks.slack.com/services/", rb"[\w/]", 20),
    ("google", "AIza", rb"[\w-]", 35),
    ("google", "ya29. GOCSPX-", rb"[\w-]", 20),
    ("openai", "sk-proj- sk-svcacct- sk-admin- sk-ant- sk-or-", rb"[\w-]", 20),
    ("openai", "sk-", rb"[A-Za-z0-9]", 20),
    ("stripe", "sk_live_ sk_test_ rk_live_ rk_test_ whsec_", rb"[A-Za-z0-9]", 16),
    ("npm", "npm_", rb"[A-Za-z0-9]", 30),
    ("pypi", "pypi-AgE", rb"[\w-]", 40),
    ("docker", "dckr_pat_ dckr_oat_", rb"[\w-]", 20),
    ("hugging_face", "hf_", rb"[A-Za-z0-9]", 30),
    ("vault", "hvs. hvb. hvr.", rb"[\w-]", 20),
    ("sendgrid", "SG.", rb"[\w.-]", 40),
    ("digitalocean", "doo_v1_ dop_v1_ dor_v1_", rb"[a-f0-9]", 40),
    ("shopify", "shpat_ shpca_ shppa_ shpss_", rb"[A-Fa-f0-9]", 30),
    ("grafana", "glsa_ glc_", rb"[\w=+/-]", 30),
    ("tailscale", "tskey-", rb"[\w-]", 16),
    ("databricks", "dapi", rb"[a-f0-9]", 32),
    ("atlassian", "ATATT3", rb"[\w=-]", 30),
    ("rubygems", "rubygems_", rb"[a-f0-9]", 40),
    ("discord", "discord.com/api/webhooks/ discordapp.com/api/webhooks/", rb"[\w/-]", 20),
    ("age", "AGE-SECRET-KEY-1", rb"[A-Z0-9]", 20),
)
"""Name, beginnings, what the rest is made of, and how much of it there is at least."""
_JWT = rb"(?<![\w-])eyJ(?P<secret>[\w-]{8,}+\.[\w.-]{8,}+)"
_JWT_CUT = rb"(?<![\w-])eyJ(?P<secret>[\w.-]++)\Z"
_TELEGRAM = rb"(?<![A-Za-z0-9])[0-9]{8,10}:AA(?P<secret>[\w-]{30,}+)"
_TELEGRAM_OF_URL = rb"/bot[0-9]{8,10}:(?P<secret>[\w-]{30,}+)"
_PEM = rb"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?P<secret>(?:(?!-----END)[^\0])+)"


def _rule(name: str, beginnings: str, rest: bytes) -> Shape:
    literals = beginnings.encode().split()
    either = b"|".join(map(re.escape, literals))
    hints = tuple(literal.lower() for literal in literals)
    return Shape(name, hints, re.compile(rb"(?<![A-Za-z0-9])(?:" + either + rb")(?P<secret>" + rest + rb")"))


SHAPES: tuple[Rule, ...] = (
    *(_rule(name, beginnings, b"%s{%d,}+" % (rest, least)) for name, beginnings, rest, least in _SHAPES),
    Shape("jwt", (b"eyj",), re.compile(_JWT)),
    Shape("telegram", (b":aa",), re.compile(_TELEGRAM)),
    Shape("telegram", (b"/bot",), re.compile(_TELEGRAM_OF_URL)),
    Shape("private_key", (b"private key",), re.compile(_PEM)),
)
CUT_SHAPES: tuple[Rule, ...] = (
    *(_rule(name, beginnings, rest + rb"++\Z") for name, beginnings, rest, _ in _SHAPES),
    Shape("jwt", (b"eyj",), re.compile(_JWT_CUT)),
)
"""Those of which the end was cut off, at the end of a text."""
