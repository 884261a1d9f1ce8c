"""What is unsafe or broken in the settings of security: told at the start."""

from __future__ import annotations

from pathlib import Path

from support.certificates import Authority
from support.server_process import serve_to_the_end


def test_what_is_unsafe_or_broken_at_the_start_is_told_in_one_line(repository: Path, tmp_path: Path) -> None:
    authority, tokens = Authority(tmp_path), tmp_path / "tokens"
    one, other = authority.issue("a"), authority.issue("b", file="other")
    tokens.write_text("opensesame\n")
    at = ["--repository", str(repository)]
    certificate = ["--tls-certificate", str(one.certificate)]
    told = [
        (2, "in plain text", serve_to_the_end(*at, "--token-file", str(tokens))),
        (
            2,
            "line 1 of the token file",
            serve_to_the_end(*at, "--host", "127.0.0.1", "--token-file", str(tokens)),
        ),
        (
            1,
            "is not that of the certificate",
            serve_to_the_end(*at, *certificate, "--tls-key", str(other.key)),
        ),
        (
            1,
            "no certificate and its key",
            serve_to_the_end(*at, *certificate, "--tls-key", str(one.certificate)),
        ),
    ]
    for status, words, done in told:
        (line,) = done.stderr.splitlines()
        assert (done.returncode, done.stdout) == (status, "")
        assert line.startswith("dropserve serve: ")
        assert words in line
        assert "opensesame" not in line
