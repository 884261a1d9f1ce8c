"""Which versions are wanted."""

from __future__ import annotations

import pytest

from dropserve_server.policy import ModelPolicy, VersionPolicy


@pytest.mark.parametrize(
    ("text", "policy", "spelled"),
    [
        ("1", VersionPolicy(1), "latest:1"),
        ("latest:3", VersionPolicy(3), "latest:3"),
        (" all ", VersionPolicy(None), "all"),
        ("only:7", VersionPolicy(None, frozenset({7})), "only:7"),
        ("only:3, 1", VersionPolicy(None, frozenset({1, 3})), "only:1,3"),
    ],
)
def test_policies_are_spelled_and_read_back(text: str, policy: VersionPolicy, spelled: str) -> None:
    assert VersionPolicy.parse(text) == policy
    assert str(policy) == spelled
    assert VersionPolicy.parse(spelled) == policy


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "latest", "latest:", "latest:0", "latest:1,2", "1,3", "only:", "only:x", "all:2", "any"],
)
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(ValueError, match=r"versions must be latest:2 \(or 2\), all, or only:1,3"):
        VersionPolicy.parse(text)


@pytest.mark.parametrize(
    ("spelled", "wanted"), [("latest:2", [9, 8]), ("all", [9, 8, 5, 1]), ("only:1,7,8", [8, 1])]
)
def test_the_newest_come_first(spelled: str, wanted: list[int]) -> None:
    policy, chosen = VersionPolicy.parse(spelled), list[int]()
    for version in (9, 8, 5, 1):
        if policy.wants(version, len(chosen)):
            chosen.append(version)
    assert chosen == wanted


def test_the_default_is_the_newest_or_the_one_that_was_named() -> None:
    assert ModelPolicy().default_of([1, 3]) == 3
    assert ModelPolicy().default_of([]) is None
    assert ModelPolicy(default=1).default_of([1, 3]) == 1
    assert ModelPolicy(default=2).default_of([1, 3]) is None
