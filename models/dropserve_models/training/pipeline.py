"""A trained model from raw features to answers, in torch: what the exported graph must agree with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dropserve_models.prediction import Task
from dropserve_models.training.encoding import Encoding
from dropserve_models.training.losses import GaussianNoise, Objective
from dropserve_models.training.network import Network
from dropserve_models.training.standardise import Scaling
from dropserve_models.training.table import Floats


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Encoding of the columns, network and what follows it.

    Attributes
    ----------
    task : {"regression", "binary", "multiclass"}
    feature_names, output_names : tuple of str
    encoding : Encoding
    target_scaling : Scaling or None
        For regression.
    network : Network
    drop_rates : tuple of float
        On the input of each linear layer; 0 for none.
    objective : Objective
    noise_scale : ndarray [targets] or None
        What the predicted noise variance of each target is multiplied by; None for 1.
    """

    task: Task
    feature_names: tuple[str, ...]
    output_names: tuple[str, ...]
    encoding: Encoding
    target_scaling: Scaling | None
    network: Network
    drop_rates: tuple[float, ...]
    objective: Objective
    noise_scale: Floats | None = None

    @property
    def predicts_noise(self) -> bool:
        """Whether the answers include the variance of the noise."""
        return isinstance(self.objective, GaussianNoise)

    def predict(self, features: Floats) -> dict[str, Floats]:
        """Answers in eval mode, by the names of the exported graph's outputs.

        Parameters
        ----------
        features : ndarray [rows, features]

        Returns
        -------
        dict of str to ndarray
            ``probabilities`` [rows, classes]; or ``mean`` [rows, targets] in the targets' units and,
            where the model predicts noise, ``noise_variance`` [rows, targets] in their squares.
        """
        x = torch.from_numpy(self.encoding.apply(features)).unsqueeze(0)
        return self.answers(self.network.evaluate(x)[0])

    def answers(self, outputs: Tensor) -> dict[str, Floats]:
        """Answers, as `predict` has them, from the network's outputs [rows, outputs]."""
        if self.target_scaling is None:
            return {"probabilities": outputs.softmax(dim=1).numpy()}
        mean, std = (torch.from_numpy(a) for a in (self.target_scaling.mean, self.target_scaling.std))
        if not isinstance(self.objective, GaussianNoise):
            return {"mean": (outputs * std + mean).numpy()}
        centre, log_variance = self.objective.split(outputs)
        return {
            "mean": (centre * std + mean).numpy(),
            "noise_variance": log_variance.exp().numpy() * self.noise_unit,
        }

    @property
    def noise_unit(self) -> Floats:
        """The noise variance of each target, in its unit squared, where the network says 1; of regression."""
        assert self.target_scaling is not None
        unit: Floats = np.square(self.target_scaling.std)
        return unit if self.noise_scale is None else unit * self.noise_scale

    def tempered(self, temperature: float) -> Pipeline:
        """The same with the last layer's outputs, the logits of a classifier, divided by `temperature`."""
        network = self.network.holding(self.network.parameters.clone())
        network.weights[-1].div_(temperature)
        network.biases[-1].div_(temperature)
        return replace(self, network=network)
