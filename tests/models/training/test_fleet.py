from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.fit import Epoch, Trained, fit
from dropserve_models.training.fleet import Examples, Fleet, Member, fleet_key
from dropserve_models.training.losses import CrossEntropy

ROWS = 80
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")),
]

OPTIONS: list[dict[str, Any]] = [
    {},
    {"learning_rate": 0.02},
    {"input_drop": 0.3, "hidden_drop": (0.5,)},
    {"max_norm": 0.6},
    {"weight_decay": 2.0},
    {"label_smoothing": 0.2},
]
"""In which members of a fleet may differ."""


def examples() -> Examples:
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, 5)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 2] + 0.3 * random.normal(size=ROWS) > 0).astype(np.int64)
    return Examples(torch.from_numpy(x), torch.from_numpy(y))


def member(seed: int, held_out: int = 20, **options: Any) -> Member:
    rows = np.random.default_rng(seed).permutation(ROWS)
    defaults: dict[str, Any] = {"hidden": (12, 8), "epochs": 6, "batch_size": 16, "input_drop": 0.1}
    return Member(
        TrainingConfig.from_mapping(defaults | options),
        rows[held_out:],
        rows[:held_out],
        np.random.SeedSequence(seed),
    )


def trained(*members: Member, device: str = "cpu", **options: Any) -> Trained:
    return fit(members, examples(), CrossEntropy(2), device=device, **options)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(
    "shared",
    [
        {"schedule": "onecycle"},
        {"schedule": "plateau"},
        {"norm": "batch", "hidden": (10, 10), "residual": True},
        {"norm": "layer", "hidden": (10, 10), "residual": True},
    ],
    ids=str,
)
def test_a_member_learns_what_it_would_learn_alone(
    device: str, optimizer: str, shared: dict[str, Any]
) -> None:
    common: dict[str, Any] = {"optimizer": optimizer, "decay_epochs": 1} | shared
    members = [member(seed, **(common | options)) for seed, options in enumerate(OPTIONS)]
    together = trained(*members, device=device)
    for number, one in enumerate(members):
        alone = trained(one)
        torch.testing.assert_close(
            together.network.parameters[number], alone.network.parameters[0], rtol=1e-3, atol=1e-4
        )
        for found, expected in zip(together.histories[number].epochs, alone.histories[0].epochs, strict=True):
            assert found.learning_rate == pytest.approx(expected.learning_rate)
            assert found.loss == pytest.approx(expected.loss, rel=1e-3)
            assert found.validation_loss == pytest.approx(expected.validation_loss, rel=1e-3)
            assert found.score == pytest.approx(expected.score, abs=0.051)


def test_members_with_embeddings_learn_what_they_would_learn_alone() -> None:
    data = examples()
    positions = torch.from_numpy(np.random.default_rng(1).integers(0, 5, (ROWS, 2))).float()
    data = Examples(torch.cat([data.x[:, :3], positions], dim=1), data.y, ((6, 3), (7, 2)))
    members = [member(seed, **options) for seed, options in enumerate(OPTIONS[:3])]
    together = fit(members, data, CrossEntropy(2)).network
    for number, one in enumerate(members):
        alone = fit([one], data, CrossEntropy(2)).network
        torch.testing.assert_close(together.parameters[number], alone.parameters[0], rtol=1e-3, atol=1e-4)
        for table in alone.tables:  # positions that no row has are as they began, but for the decay
            assert not table[0, -1].any()


def test_members_differ_where_their_seeds_or_options_do() -> None:
    parameters = trained(member(0), member(0), member(1), member(0, max_norm=0.5)).network.parameters
    assert torch.equal(parameters[0], parameters[1])
    assert not torch.equal(parameters[0], parameters[2])
    assert not torch.equal(parameters[0], parameters[3])


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_members_of_unequal_rows_learn_from_their_own_alone(norm: str) -> None:
    data = examples()
    spoilt = Examples(data.x.clone(), data.y.clone())
    members = [member(0, norm=norm), member(1, held_out=33, norm=norm), member(2, held_out=21, norm=norm)]
    seen = np.concatenate([members[1].training, members[1].validation[:20]])
    others = np.setdiff1d(np.arange(ROWS), seen)
    spoilt.x[others] = 1e3
    short = Member(members[1].config, members[1].training, members[1].validation[:20], members[1].seed)
    found = [
        fit([members[0], short, members[2]], rows, CrossEntropy(2)).network.parameters
        for rows in (data, spoilt)
    ]
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][0], found[1][0])


def test_members_leave_one_by_one_without_a_trace_in_the_others() -> None:
    members = [member(seed, patience=50) for seed in range(4)]
    whole = trained(*members)

    def on_epoch(epochs: Mapping[int, Epoch]) -> list[int]:
        number = next(iter(epochs.values())).number
        assert set(epochs) == {1: {0, 1, 2, 3}, 2: {0, 2, 3}}.get(number, {0, 2})
        return {1: [1], 2: [3]}.get(number, [])

    parted = trained(*members, on_epoch=on_epoch)
    assert [len(history.epochs) for history in parted.histories] == [6, 1, 6, 2]
    for stayed in (0, 2):
        torch.testing.assert_close(parted.network.parameters[stayed], whole.network.parameters[stayed])
    first = whole.histories[1].epochs[0]
    assert parted.histories[1].epochs == [first]
    assert parted.histories[1].best == first


def test_each_member_stops_by_its_own_patience() -> None:
    members = [
        member(seed, patience=patience, epochs=40, learning_rate=0.05) for seed, patience in ((0, 1), (0, 9))
    ]
    short, long = trained(*members).histories
    assert len(short.epochs) < len(long.epochs)
    assert short.epochs == long.epochs[: len(short.epochs)]
    for history, patience in ((short, 1), (long, 9)):
        losses = [epoch.validation_loss for epoch in history.epochs if epoch.validation_loss is not None]
        assert history.best is not None
        assert history.best.validation_loss == min(losses)
        assert len(history.epochs) in (40, history.best.number + patience)


def test_a_member_that_diverges_leaves_and_spoils_nothing() -> None:
    options: dict[str, Any] = {"optimizer": "sgd", "schedule": "constant"}
    bad = member(0, learning_rate=1e30, **options)
    good = member(1, learning_rate=0.1, **options)
    found = trained(bad, good)
    assert found.histories[0].diverged is not None
    assert found.histories[1].diverged is None
    alone = trained(good)
    torch.testing.assert_close(found.network.parameters[1], alone.network.parameters[0])


def test_what_members_may_differ_in() -> None:
    for options in OPTIONS:
        assert fleet_key(member(0, **options).config) == fleet_key(member(0).config)
    with pytest.raises(ValueError, match="members of one fleet differ in no option but hidden_drop"):
        Fleet([member(0), member(1, batch_size=8)], examples(), CrossEntropy(2))
