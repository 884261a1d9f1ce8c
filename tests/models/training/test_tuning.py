from __future__ import annotations

import numpy as np

from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.crossvalidate import fit_folds
from dropserve_models.training.sources import read_table
from dropserve_models.training.task import recognise
from dropserve_models.training.tuning import Answers, HeldOut, tune


def test_noise_scales_what_the_folds_answered_as_their_graphs_would() -> None:
    table = read_table("sklearn:linnerud")
    goal, config = (
        recognise(table),
        TrainingConfig(hidden=(24,), epochs=12, hidden_drop=(0.2,), learning_rate=0.02),
    )
    parts = fit_folds(table, goal, config, 3, 1, np.random.SeedSequence(0), stage="test", device="cpu")
    held_out = [HeldOut(fold.pipeline, rows) for fold, rows in parts]
    tuning, answers = tune(table, goal, held_out)
    assert tuning.noise_scale is not None
    assert all(abs(scale - 1.0) > 0.01 for scale in tuning.noise_scale)
    for part, answer in zip(held_out, answers, strict=True):
        expected = Answers.of(table, tuning.apply_to(part))
        for one, other in ((answer.single, expected.single), (answer.several, expected.several)):
            assert one is not None
            assert other is not None
            np.testing.assert_array_equal(one.mean, other.mean)
            np.testing.assert_array_equal(one.variance, other.variance)
            assert one.aleatoric_variance is not None
            assert other.aleatoric_variance is not None
            np.testing.assert_allclose(one.aleatoric_variance, other.aleatoric_variance, rtol=1e-6)
