"""Clients are told the same about TLS and tokens, whichever they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from infrasight.cli.options import DoctorOptions, EventsOptions, QueryOptions
from infrasight.node.settings import Settings as NodeSettings
from infrasight.settings import describe, parse
from infrasight.trust import Trust
from infrasight.wire.tls import Credentials

FILES = {"tls_ca": Path("a"), "tls_cert": Path("b"), "tls_key": Path("c"), "token_file": Path("d")}


@pytest.mark.parametrize("settings", [NodeSettings, EventsOptions, QueryOptions, DoctorOptions])
def test_by_flag_and_by_variable(settings: type[Trust]) -> None:
    required = ["SELECT 1"] if settings is QueryOptions else []
    flags = [f"--{name.replace('_', '-')}={file}" for name, file in FILES.items()]
    variables = {f"INFRASIGHT_{name.upper()}": str(file) for name, file in FILES.items()}
    for argv, environ in ((flags, {}), ([], variables)):
        assert parse(settings, [*required, *argv], environ, prog="p", description="d").credentials == Credentials(**FILES)
    assert parse(settings, required, {}, prog="p", description="d").credentials == Credentials()


def test_no_secret_itself_is_an_option() -> None:
    assert all(row.name.endswith(("_ca", "_cert", "_key", "_file")) for row in describe(Trust))
