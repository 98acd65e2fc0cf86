"""From a URL to hosts and logins, without a secret anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from infrasight.errors import StoreError, StoreUnavailable
from infrasight.store import open_store
from infrasight.store.addresses import Login, parse


def test_defaults_on_loopback() -> None:
    address = parse("clickhouse://127.0.0.1")
    assert (address.hosts, address.http_port, address.secure) == ((("127.0.0.1", 9000),), 8123, False)
    assert (address.compression, address.writer.user, address.reader) == ("lz4", "default", address.writer)


@pytest.mark.parametrize("host", ["db", "10.0.0.1", "[2001:db8::1]"])
def test_what_others_can_reach_is_encrypted_unless_asked_for(host: str) -> None:
    assert (parse(f"clickhouse://{host}").secure, parse(f"clickhouse://{host}").http_port) == (True, 8443)
    assert not parse(f"clickhouse://{host}/?secure=0").secure
    assert parse(f"clickhouse://localhost/?host={host}").secure


def test_everything_given() -> None:
    address = parse(
        "clickhouse://in%40fra@a:1/?host=b:2&host=c&secure=1&ca=/ca.pem&compression=zstd&password_file=/p&reader=r&reader_password_file=/q&http_port=3"
    )
    assert address.hosts == (("a", 1), ("b", 2), ("c", 9440))
    assert (address.ca, address.compression, address.http_port) == (Path("/ca.pem"), "zstd", 3)
    assert address.writer == Login("in@fra", Path("/p"), "INFRASIGHT_STORE_PASSWORD")
    assert address.reader == Login("r", Path("/q"), "INFRASIGHT_STORE_READER_PASSWORD")
    assert str(address) == "clickhouse://a:1,b:2,c:9440"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("clickhouse://", "expected clickhouse://USER@HOST"),
        ("clickhouse:///x", "expected"),
        ("clickhouse://h/database", "expected"),
        ("clickhouse://h:x", "[Pp]ort"),
        ("clickhouse://h:70000", "[Pp]ort"),
        ("clickhouse://h/?host=", "host= is"),
        ("clickhouse://h/?secure=yes", "secure is 0 or 1"),
        ("clickhouse://h/?verify=0", "no such parameter: 'verify'"),
        ("clickhouse://h/?compression=gzip", "lz4, zstd, none"),
        ("clickhouse://h/?password_file=secret", "absolute path"),
        ("clickhouse://h/?http_port=0", "http_port"),
        ("clickhouse://h/?cluster=a%27b", "cluster is a name"),
        ("clickhouse://a%0ab@h", "control characters"),
    ],
)
def test_a_bad_url_is_one_clear_line(url: str, says: str) -> None:
    with pytest.raises(StoreError, match=says) as error:
        open_store(url)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "clickhouse://u:hunter2@h",
        "clickhouse://:hunter2@h:9000/?secure=1",
        "clickhouse://u:hun%zzter2hunter2@[h",
        "clickhouse://u:hunter2/hunter2@h",
        "clickhouse://u:hunter2@hunter2:hunter2@h:9000/",
        "clickhouse://h/?password=hunter2",
        "clickhouse://h/?reader_password=hunter2&x=1",
        "clickhouses://u:hunter2@h",
        "chdb://u:hunter2@h",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(StoreError) as error:
        open_store(url)
    assert "hunter2" not in f"{error.value} {error.value!r}"


def test_a_password_is_read_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    login = Login("u", tmp_path / "p", "VARIABLE")
    with pytest.raises(StoreUnavailable, match="No such file"):
        login.password()
    for password in ("one", "two δ "):
        (tmp_path / "p").write_text(password + "\n")
        assert login.password() == password
    monkeypatch.setenv("VARIABLE", "three")
    assert Login("u", None, "VARIABLE").password() == "three"
    monkeypatch.delenv("VARIABLE")
    assert Login("u", None, "VARIABLE").password() == ""


@pytest.mark.parametrize("content", [b"hunter2\nX-Header: 1", b"hunter2\0", b"\xffhunter2"])
def test_a_password_that_is_no_line_of_text_is_not_repeated(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(StoreUnavailable) as error:
        Login("u", tmp_path / "p", "").password()
    assert "hunter2" not in str(error.value)
