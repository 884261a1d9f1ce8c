"""Certificates as they are found on disk: whole, broken, half exchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from dropserve_server.errors import StartupError
from dropserve_server.grpc import tls
from support.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_what_fits_is_read(authority: Authority) -> None:
    server = authority.issue("localhost")
    found = tls.read_certificates(server.certificate, server.key, authority.certificate)
    assert found.chain == server.certificate.read_bytes()
    assert found.key == server.key.read_bytes()
    assert found.client_ca == authority.certificate.read_bytes()
    assert tls.read_certificates(server.certificate, server.key, None).client_ca is None


def test_a_key_of_another_certificate_is_told(authority: Authority) -> None:
    one, other = authority.issue("localhost"), authority.issue("localhost", file="other")
    with pytest.raises(StartupError, match=rf"the key {other.key} is not that of the certificate"):
        tls.read_certificates(one.certificate, other.key, None)


@pytest.mark.parametrize("content", [b"", b"nothing", b"-----BEGIN CERTIFICATE-----\nMIIB\n"])
def test_what_is_no_pem_is_told(authority: Authority, content: bytes) -> None:
    server = authority.issue("localhost")
    whole = server.certificate.read_bytes()
    server.certificate.write_bytes(content)
    with pytest.raises(StartupError, match="no certificate and its key in PEM form"):
        tls.read_certificates(server.certificate, server.key, None)
    server.certificate.write_bytes(whole)
    server.key.write_bytes(content)
    with pytest.raises(StartupError, match="no certificate and its key in PEM form"):
        tls.read_certificates(server.certificate, server.key, None)


@pytest.mark.parametrize("content", [b"", b"nothing", b"\xff\xfe"])
def test_authorities_that_are_none_are_told(authority: Authority, tmp_path: Path, content: bytes) -> None:
    server, path = authority.issue("localhost"), tmp_path / "clients.pem"
    path.write_bytes(content)
    with pytest.raises(StartupError, match=r"clients\.pem holds no certificates in PEM form"):
        tls.read_certificates(server.certificate, server.key, path)


def test_an_encrypted_key_is_refused_without_asking_for_its_password(authority: Authority) -> None:
    server = authority.issue("localhost")
    key = serialization.load_pem_private_key(server.key.read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    server.key.write_bytes(encrypted)
    with pytest.raises(StartupError, match="is encrypted"):
        tls.read_certificates(server.certificate, server.key, None)


def test_files_exchanged_while_they_are_read_are_not_taken(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, check = authority.issue("localhost"), tls._check

    def exchanged(certificate: Path, key: Path) -> None:
        authority.issue("localhost")
        check(certificate, key)

    monkeypatch.setattr(tls, "_check", exchanged)
    with pytest.raises(StartupError, match="are being written"):
        tls.read_certificates(server.certificate, server.key, None)


def test_a_missing_file_is_told(authority: Authority) -> None:
    server = authority.issue("localhost")
    server.key.unlink()
    with pytest.raises(StartupError, match=rf"can't read {server.key}: No such file"):
        tls.read_certificates(server.certificate, server.key, None)
