"""The token file: what it may say, and that nothing of a token gets out."""

from __future__ import annotations

import hmac
import stat
from hashlib import sha256
from pathlib import Path

import pytest

from dropserve_server import tokens
from dropserve_server.errors import SettingsError
from dropserve_server.tokens import add_token, read_tokens

DIGEST = sha256(b"opensesame").hexdigest()


def test_a_made_token_is_found_again_and_nowhere_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    made = {"shop": add_token(path, "shop", "predict"), "robot": add_token(path, "robot", "admin")}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    known = read_tokens(path)
    for name, token in made.items():
        bearer = known.bearer_of(token)
        assert bearer is not None
        assert bearer.name == name
        assert token not in path.read_text()
        assert len(token) >= 43  # 32 bytes in base64
    assert made["shop"] != made["robot"]


def test_admin_includes_predict_and_not_the_other_way_round(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    known = {role: add_token(path, role, role) for role in tokens.ROLES}
    read = read_tokens(path)
    may = {
        (role, asked): bearer.may(asked)
        for role, token in known.items()
        for asked in tokens.ROLES
        if (bearer := read.bearer_of(token))
    }
    assert may == {
        ("predict", "predict"): True,
        ("predict", "admin"): False,
        ("admin", "predict"): True,
        ("admin", "admin"): True,
    }


@pytest.mark.parametrize("token", ["", "opensesam", "opensesame ", DIGEST, f"sha256:{DIGEST}", "é\udcff"])
def test_nothing_but_the_token_is_the_token(tmp_path: Path, token: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"shop predict sha256:{DIGEST}\n")
    assert read_tokens(path).bearer_of(token) is None
    assert read_tokens(path).bearer_of("opensesame") is not None


def test_every_bearer_is_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"shop predict sha256:{DIGEST}\n")
    for number in range(4):
        add_token(path, f"other-{number}", "predict")
    known, compared, compare = read_tokens(path), list[bytes](), hmac.compare_digest

    def counted(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    found = known.bearer_of("opensesame")
    assert found is not None
    assert found.name == "shop"  # the first of the file, and the others were compared all the same
    assert len(set(compared)) == 5


def test_comments_blank_lines_and_columns_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# who\n\n  shop   predict\tsha256:{DIGEST}   # since March\n")
    assert read_tokens(path).bearer_of("opensesame") is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no tokens"),
        ("# nothing yet\n", "has no tokens"),
        ("shop predict opensesame\n", "line 1"),
        (f"ok predict sha256:{DIGEST}\nopensesame\n", "line 2"),
        (f"shop root sha256:{DIGEST}\n", "line 1"),
        (f"shop predict sha256:{DIGEST[:-1]}\n", "line 1"),
        (f"shop predict sha256:{DIGEST.upper()}\n", "line 1"),
        (f"sh/op predict sha256:{DIGEST}\n", "line 1"),
        (f"shop predict sha256:{DIGEST} opensesame\n", "line 1"),
        (f"shop predict sha256:{DIGEST}\n" * 2, "line 2"),
    ],
)
def test_a_wrong_file_is_told_by_its_line_without_what_it_holds(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(SettingsError) as refusal:
        read_tokens(path)
    assert words in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert "opensesame" not in str(refusal.value)
    assert DIGEST not in str(refusal.value)


def test_a_file_that_cant_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"can't read the token file .*none: No such file"):
        read_tokens(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not text"):
        read_tokens(tmp_path / "binary")


def test_a_name_is_taken_once_and_well_formed(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"shop predict sha256:{DIGEST}")  # without a line break at its end
    before = path.read_text()
    with pytest.raises(SettingsError, match="has a token named shop"):
        add_token(path, "shop", "admin")
    for name in ("", "a b", "-x", "x" * 65, "x\ny"):
        with pytest.raises(SettingsError, match="letters, digits"):
            add_token(path, name, "admin")
    assert path.read_text() == before
    add_token(path, "robot", "admin")
    assert path.read_text().startswith(before + "\nrobot admin sha256:")
    with pytest.raises(SettingsError, match="can't write the token file"):
        add_token(tmp_path / "absent" / "tokens", "shop", "predict")
