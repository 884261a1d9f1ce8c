"""The calibration in a manifest: round trips, and what is refused at load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dropserve_models import load
from dropserve_models.calibration import CalibrationRecord, LikelihoodRecord, ModeRecord
from dropserve_models.errors import ArtifactError, InputError, IntervalUnavailable
from dropserve_models.manifest import Manifest, sha256_of
from dropserve_models.publishing import publish
from support.onnx_models import Array, mlp
from support.onnx_models import publish as publish_bare

NETWORK = mlp([6, 20, 2], [0.1, 0.3]).onnx()
X: Array = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)
NOISE = np.array([1.0, 4.0])
RECORD = CalibrationRecord(
    method="split",
    rows=4,
    guaranteed=True,
    noise_variance=tuple(NOISE.tolist()),
    deterministic=ModeRecord(
        scores=((0.0, 0.5, 0.5, 2.0), (1.0, 2.0, 3.0, 4.0)),
        log_likelihood=LikelihoodRecord(before=-2.5, after=-1.0),
    ),
    monte_carlo=ModeRecord(scores=((0.5, 1.5), (0.25, 1.25)), ranks=(2, 4), passes=100, masks="stratified"),
)


def manifest(calibration: CalibrationRecord | None = RECORD) -> Manifest:
    return Manifest(
        task="regression",
        feature_names=tuple("abcdef"),
        output_names=("y", "z"),
        drop_rates=(0.1, 0.3),
        predicts_noise=False,
        calibration=calibration,
        sha256=sha256_of(NETWORK),
    )


def changed(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(RECORD.model_dump_json())
    return document | changes


def test_round_trip_with_a_line_for_each_list_of_scores() -> None:
    written = manifest().to_json()
    assert Manifest.from_json(written) == manifest()
    lines = [line.strip() for line in written.decode().splitlines()]
    assert "[0.0, 0.5, 0.5, 2.0]," in lines
    assert '"ranks": [2, 4],' in lines


def test_a_name_that_looks_like_numbers_stays_as_it_is() -> None:
    odd = Manifest.from_json(manifest().to_json().replace(b'"y"', b'"[\\n  1,\\n  2\\n]"'))
    assert odd.output_names == ("[\n  1,\n  2\n]", "z")
    assert Manifest.from_json(odd.to_json()) == odd


def test_a_calibrated_model_answers_with_its_intervals(tmp_path: Path) -> None:
    model: Any = load(publish(tmp_path, "m", NETWORK, manifest()), device="cpu")
    assert model.info.calibrated
    point = model.predict(X, interval=0.8)
    plain, half = model.predict(X), np.array([2.0 * 1.0, 4.0 * 2.0])
    np.testing.assert_array_equal(point.mean, plain.mean)
    np.testing.assert_allclose(point.interval_upper, plain.mean + half, rtol=1e-6)
    np.testing.assert_allclose(point.interval_lower, plain.mean - half, rtol=1e-6)
    assert plain.interval_lower is None

    bars = model.predict(X, passes=20, seed=1, interval=0.5)  # rank 3 was not kept: rank 4 is
    assert bars.variance is not None
    half = np.array([1.5, 1.25]) * np.sqrt(bars.variance.astype(np.float64) + NOISE)
    np.testing.assert_allclose(bars.interval_upper, bars.mean + half, rtol=1e-6)
    # An answer that may stop early has the same quantile.
    adaptive = model.predict(X, passes=200, seed=1, mean_tolerance=0.2, interval=0.5)
    assert adaptive.variance is not None
    half = np.array([1.5, 1.25]) * np.sqrt(adaptive.variance.astype(np.float64) + NOISE)
    np.testing.assert_allclose(adaptive.interval_lower, adaptive.mean - half, rtol=1e-6)


@pytest.mark.parametrize("interval", [0.0, 1.0, float("nan"), "wide", 0.9])
def test_a_coverage_that_can_not_be_had_is_refused(tmp_path: Path, interval: Any) -> None:
    model: Any = load(publish(tmp_path, "m", NETWORK, manifest()), device="cpu")
    with pytest.raises(InputError) as refusal:
        model.predict(X, interval=interval)
    assert refusal.value.field == "interval"


def test_a_model_without_calibration_refuses(tmp_path: Path) -> None:
    for model in (
        load(publish_bare(tmp_path, "made_elsewhere", NETWORK), device="cpu"),
        load(publish(tmp_path, "m", NETWORK, manifest(None)), device="cpu"),
    ):
        assert not model.info.calibrated
        with pytest.raises(IntervalUnavailable, match="without a calibration"):
            model.predict(X, interval=0.9)


def test_a_mode_without_scores_is_refused(tmp_path: Path) -> None:
    alone = manifest(RECORD.model_copy(update={"monte_carlo": None}))
    model: Any = load(publish(tmp_path, "m", NETWORK, alone), device="cpu")
    assert model.predict(X, interval=0.5).interval_lower is not None
    with pytest.raises(IntervalUnavailable, match="deterministic requests only"):
        model.predict(X, passes=3, interval=0.5)


def mode(scores: Any = ((1.0, 2.0, 3.0, 4.0),) * 2, **fields: Any) -> dict[str, Any]:
    return {"scores": scores} | fields


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ({}, "method"),
        ([], "calibration"),
        (changed(method="magic"), "method"),
        (changed(rows=0), "rows"),
        (changed(rows=True), "rows"),
        (changed(rows=5), "4 scores for 5 ranks"),
        (changed(temperature=0.0), "temperature"),
        (changed(noise_variance=[1.0]), "not that of each target"),
        (changed(noise_scale=[1.0, -1.0]), "noise_scale"),
        (changed(deterministic=None), "deterministic"),
        (changed(deterministic=mode(())), "scores"),
        (changed(deterministic=mode(((1.0, 2.0, 3.0, 4.0),))), "1 lists of scores, not 2"),
        (changed(deterministic=mode(((2.0, 1.0, 3.0, 4.0),) * 2)), "scores must ascend"),
        (changed(deterministic=mode(((-1.0, 1.0, 3.0, 4.0),) * 2)), "scores"),
        (changed(deterministic=mode(((1.0, 2.0, 3.0),) * 2)), "3 scores for 4 ranks"),
        (changed(deterministic=mode(((1.0, 2.0),) * 2, ranks=[1, 3])), "ranks must ascend"),
        (changed(deterministic=mode(((1.0, 2.0),) * 2, ranks=[4, 4])), "ranks must ascend"),
        (changed(deterministic=mode(((1.0, 2.0),) * 2, ranks=[0, 4])), "ranks must ascend"),
        (changed(deterministic=mode(((),) * 2, ranks=[])), "ranks must ascend"),
        (changed(monte_carlo=mode(passes=0)), "passes"),
        (changed(monte_carlo=mode(masks="odd")), "masks"),
    ],
)
def test_a_malformed_calibration_is_refused_at_load(tmp_path: Path, calibration: Any, message: str) -> None:
    folder = publish(tmp_path, "m", NETWORK, manifest())
    document = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps(document | {"calibration": calibration}))
    with pytest.raises(ArtifactError, match=rf"manifest\.json is malformed: .*{message}") as refusal:
        load(folder, device="cpu")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_scores_are_finite(tmp_path: Path, number: str) -> None:
    folder = publish(tmp_path, "m", NETWORK, manifest())
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("[1.0, 2.0, 3.0, 4.0]", f"[1.0, 2.0, 3.0, {number}]"))
    with pytest.raises(ArtifactError, match=r"manifest\.json is malformed"):
        load(folder, device="cpu")
