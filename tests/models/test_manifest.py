from __future__ import annotations

import json
from typing import Any

import pytest

from dropserve_models.errors import ArtifactError
from dropserve_models.manifest import Manifest, TrainingRecord, sha256_of

DIGEST = sha256_of(b"model")


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "task": "binary",
        "feature_names": ("age", "größe"),
        "output_names": ("no", "yes"),
        "drop_rates": (0.2, 0.5),
        "predicts_noise": False,
        "sha256": DIGEST,
        "training": TrainingRecord(
            data_fingerprint=sha256_of(b"data"),
            rows=10,
            seed=2**64 - 1,
            versions={"torch": "2.13.0"},
            metrics={"accuracy": 1.0},
            config={"hidden": [100, 100], "max_norm": None},
        ),
    }
    return Manifest(**(fields | changes))


def changed(**changes: Any) -> bytes:
    document = json.loads(manifest().to_json())
    return json.dumps(document | changes).encode()


def test_round_trip() -> None:
    assert Manifest.from_json(manifest().to_json()) == manifest()


def test_without_training_record() -> None:
    lone = manifest(training=None)
    assert Manifest.from_json(lone.to_json()) == lone


def test_keys_of_a_later_trainer_are_ignored() -> None:
    assert Manifest.from_json(changed(colour="green")) == manifest()


def test_a_newer_schema_is_refused_by_name() -> None:
    with pytest.raises(
        ArtifactError, match=r"schema version 2, this dropserve reads up to 1: update dropserve"
    ):
        Manifest.from_json(changed(schema_version=2, task="time travel"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "malformed: the whole"),
        (changed(task="magic"), "malformed: task"),
        (changed(sha256="abc"), "malformed: sha256"),
        (changed(feature_names=[]), "malformed: feature_names"),
        (changed(feature_names="age"), "malformed: feature_names"),
        (changed(drop_rates=[1.0]), r"malformed: drop_rates\.0"),
        (changed(drop_rates=[-0.1]), r"malformed: drop_rates\.0"),
        (changed(output_names=["a", "b", "c"]), "a binary task has 2 class labels, not 3"),
        (changed(predicts_noise=True), "only regression predicts noise"),
        (changed(schema_version="1"), "malformed: schema_version"),
        (changed(schema_version=0), "malformed: schema_version"),
    ],
)
def test_malformed_manifests_are_told_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        Manifest.from_json(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["task", "feature_names", "output_names", "drop_rates", "sha256"])
def test_required_fields(missing: str) -> None:
    document = json.loads(manifest().to_json())
    del document[missing]
    with pytest.raises(ArtifactError, match=missing):
        Manifest.from_json(json.dumps(document).encode())
