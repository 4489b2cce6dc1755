"""Probes of frozen features: k nearest neighbours and a linear classifier, trained on some slices, scored on others.

With SciPy and not scikit-learn 1.9, whose kNN, logistic regression and ROC AUC are the oracle of the tests: results
agree, but not to the last bit, so published figures could not be reproduced exactly; and every installation would grow
by 60 MB for three short functions.
"""

from __future__ import annotations

import numpy as np
from scipy import optimize, special, stats

NEIGHBOURS = 20
TEMPERATURE = 0.07
"""As in Wu et al. 2018, who use more neighbours, among many more images."""
_LEAST_SPREAD = 1e-6


def auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive has a higher score than a negative; ties count half.

    Args:
      score: float (n,).
      positive: bool (n,), some True and some False.
    """
    positives = int(np.count_nonzero(positive))
    pairs = positives * (len(positive) - positives)
    return float((stats.rankdata(score)[positive].sum() - positives * (positives + 1) / 2) / pairs)


def knn(train: np.ndarray, labels: np.ndarray, features: np.ndarray) -> np.ndarray:
    """The share of positives among the nearest neighbours, weighted by exp(cosine / temperature).

    Source: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018.

    Args:
      train, features: float (n, channels), (m, channels).
      labels: bool (n,).

    Returns:
      float64 (m,) in [0, 1].
    """
    cosine = _unit(features) @ _unit(train).T  # (m, n)
    k = min(NEIGHBOURS, len(train))
    nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
    near = np.take_along_axis(cosine, nearest, axis=1)
    return (special.softmax(near / TEMPERATURE, axis=1) * labels[nearest]).sum(axis=1)


def linear(train: np.ndarray, labels: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Logits of a logistic regression on standardised features, with half the squared weights added to the summed loss.

    Args:
      train, features: float (n, channels), (m, channels).
      labels: bool (n,).

    Returns:
      float64 (m,).
    """
    middle, spread = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    spread = np.maximum(
        spread, _LEAST_SPREAD
    )  # A constant channel carries no information, and must not be divided by 0.
    x = (train - middle) / spread
    sign = np.where(labels, 1.0, -1.0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ weights[:-1] + weights[-1])
        pull = -sign * special.expit(-margin)
        gradient = np.append(x.T @ pull + weights[:-1], pull.sum())
        return np.logaddexp(0, -margin).sum() + weights[:-1] @ weights[:-1] / 2, gradient

    weights = optimize.minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return (features - middle) / spread @ weights[:-1] + weights[-1]


def _unit(features: np.ndarray) -> np.ndarray:
    features = features.astype(np.float64)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
