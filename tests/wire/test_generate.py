"""What is committed is what the declarations give."""

from __future__ import annotations

from pathlib import Path

import pytest

from infrasight.schema.protobuf import events_proto
from infrasight.wire.generate import EVENTS_PROTO, GENERATED, PROTO, compile_proto, write_proto


def test_events_proto_is_derived_from_the_schema() -> None:
    assert (PROTO / EVENTS_PROTO).read_text() == events_proto()


@pytest.mark.needs("grpc_tools", "betterproto2_compiler")
def test_generated_code_is_what_the_compiler_makes(tmp_path: Path) -> None:
    write_proto(tmp_path / "proto")
    compile_proto(tmp_path / "proto", tmp_path / "generated")
    assert _contents(tmp_path / "generated") == _contents(GENERATED)


def _contents(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"}
