"""A certificate authority of files in a directory, for a small fleet. The only module that imports `cryptography`."""

from __future__ import annotations

import datetime
import ipaddress
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infrasight.cli.private import write_new, written_anew
from infrasight.errors import CommandLineError

CA, CA_KEY, CLIENTS = "ca.pem", "ca.key", "clients.pem"
"""The authority's certificate, for everybody; its key, for nobody else; and what a server checks its clients against: the certificate again, and the
list of those that are revoked."""
_SKEW = datetime.timedelta(hours=1)
"""How far a clock may be behind ours before what we make is not valid there yet."""
_COMMON_NAME_LENGTH = 64


@dataclass(frozen=True)
class Subject:
    """Whom a certificate is for: hosts that a server is reached under (names and addresses), or the URI of a client."""

    name: str
    hosts: tuple[str, ...] = ()
    uri: str = ""


@dataclass(frozen=True)
class Found:
    """A certificate, as `show` tells it. `problem` is empty when it is good now."""

    file: Path
    names: tuple[str, ...]
    until: datetime.datetime
    problem: str


class Authority:
    """Makes certificates that it signs. Errors are CommandLineError."""

    def __init__(self, directory: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.directory, self._certificate, self._key = directory, certificate, key

    @classmethod
    def create(cls, directory: Path, name: str, days: int) -> Self:
        """A new one, in files. No two have the same name: whoever trusts two at a time tells them apart by it."""
        key = ec.generate_private_key(ec.SECP256R1())
        own = f"{name} {secrets.token_hex(4)}"
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, own[-_COMMON_NAME_LENGTH:])])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(ca=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        made = cls(directory, certificate, key)
        write_new(directory / CA_KEY, _pem_of_key(key), secret=True)
        write_new(directory / CA, _pem(certificate))
        write_new(directory / CLIENTS, _pem(certificate) + made._revocations([]))
        return made

    @classmethod
    def load(cls, directory: Path) -> Self:
        """The one that is there."""
        certificate = _read(directory / CA)
        try:
            key = serialization.load_pem_private_key((directory / CA_KEY).read_bytes(), password=None)
        except OSError as error:
            raise CommandLineError(f"{directory / CA_KEY}: {error.strerror} (`infrasight certs init` makes an authority)") from None
        except (TypeError, ValueError):
            raise CommandLineError(f"{directory / CA_KEY} holds no key that is not encrypted") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise CommandLineError(f"{CA_KEY} is not the key of {CA} in {directory}")
        return cls(directory, certificate, key)

    def issue(self, subject: Subject, days: float, *, begins: datetime.datetime | None = None, anew: bool = False) -> tuple[Path, Path]:
        """Certificate and key, in `<name>.pem` and `<name>.key`, which must not be there unless `anew`. It ends with the authority's at the
        latest."""
        begins = begins or datetime.datetime.now(datetime.UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if subject.hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject.name[:_COMMON_NAME_LENGTH])]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins - _SKEW)
            .not_valid_after(min(begins + datetime.timedelta(days=days), self._certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(_names(subject)), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(self._key_identifier(), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        cert_file, key_file = (self.directory / f"{subject.name}.{end}" for end in ("pem", "key"))
        if anew:
            written_anew(key_file, _pem_of_key(key), secret=True)
            written_anew(cert_file, _pem(certificate))
        else:
            for file in (cert_file, key_file):
                if file.exists():
                    raise CommandLineError(f"{file} is there already: `infrasight certs renew {subject.name}` makes it anew")
            write_new(key_file, _pem_of_key(key), secret=True)
            write_new(cert_file, _pem(certificate))
        return cert_file, key_file

    def renew(self, name: str, days: int | None) -> tuple[Path, Path]:
        """What `name` has, with a new key, for as long as before unless `days` are given."""
        old = _read(self.directory / f"{name}.pem")
        if not self._is_ours(old):
            raise CommandLineError(f"{name}.pem is not of the authority in {self.directory}")
        names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        hosts = (*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress)))
        lasted = old.not_valid_after_utc - old.not_valid_before_utc - _SKEW
        lasts = days if days is not None else lasted / datetime.timedelta(days=1)
        return self.issue(Subject(name, hosts, uris[0] if uris else ""), lasts, anew=True)

    def revoke(self, name: str) -> Path:
        """Put the certificate of `name` on the list; the file that has the list."""
        certificate = _read(self.directory / f"{name}.pem")
        if not self._is_ours(certificate):
            raise CommandLineError(f"{name}.pem is not of the authority in {self.directory}")
        now = datetime.datetime.now(datetime.UTC)
        entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(now).build()
        others = [each for each in self._revoked() if each.serial_number != certificate.serial_number]
        written_anew(self.directory / CLIENTS, _pem(self._certificate) + self._revocations([*others, entry]))
        return self.directory / CLIENTS

    def found(self) -> Iterator[Found]:
        """All certificates in the directory."""
        now = datetime.datetime.now(datetime.UTC)
        revoked = {each.serial_number for each in self._revoked()}
        for file in sorted(self.directory.glob("*.pem")):
            if file.name == CLIENTS:
                continue
            certificate = _read(file)
            problem = "" if file.name == CA or self._is_ours(certificate) else "of another authority"
            if now < certificate.not_valid_before_utc:
                problem = "not valid yet"
            if now > certificate.not_valid_after_utc:
                problem = "expired"
            if certificate.serial_number in revoked:
                problem = "revoked"
            yield Found(file, tuple(_shown(certificate)), certificate.not_valid_after_utc, problem)

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        own = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)

    def _is_ours(self, certificate: x509.Certificate) -> bool:
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except (InvalidSignature, TypeError, ValueError):
            return False
        return True

    def _revoked(self) -> list[x509.RevokedCertificate]:
        file = self.directory / CLIENTS
        try:
            _, begin, rest = file.read_bytes().partition(b"-----BEGIN X509 CRL-----")
            return list(x509.load_pem_x509_crl(begin + rest))
        except OSError as error:
            raise CommandLineError(f"{file}: {error.strerror}") from None
        except ValueError:
            raise CommandLineError(f"{file} holds no list of revoked certificates") from None

    def _revocations(self, entries: Sequence[x509.RevokedCertificate]) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(now - _SKEW)
            .next_update(self._certificate.not_valid_after_utc)
            .add_extension(self._key_identifier(), critical=False)
            .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
        )
        for entry in entries:
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _names(subject: Subject) -> list[x509.GeneralName]:
    if subject.uri:
        return [x509.UniformResourceIdentifier(subject.uri)]
    names: list[x509.GeneralName] = []
    for host in subject.hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def _shown(certificate: x509.Certificate) -> Iterator[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        yield from (str(each.value) for each in certificate.subject)
        return
    for name in names:
        yield str(name.value)


def _read(file: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(file.read_bytes())
    except OSError as error:
        raise CommandLineError(f"{file}: {os.strerror(error.errno or 0)}") from None
    except ValueError:
        raise CommandLineError(f"{file} holds no certificate") from None


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
