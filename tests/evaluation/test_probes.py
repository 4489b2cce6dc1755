"""Probes of frozen features against loops, against Newton's method, and on features that know or do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lungjax.evaluation.classification import probes


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_auc_counts_pairs(rng: np.random.Generator):
    score, positive = rng.integers(0, 6, 40).astype(float), rng.random(40) < 0.3
    wins = [(a > b) + 0.5 * (a == b) for a in score[positive] for b in score[~positive]]
    assert probes.auc(score, positive) == pytest.approx(np.mean(wins))
    assert probes.auc(positive.astype(float), positive) == 1


def test_knn_by_hand(rng: np.random.Generator):
    train, labels, features = rng.normal(size=(50, 5)), rng.random(50) < 0.5, rng.normal(size=(7, 5))
    found = probes.knn(train, labels, features)
    for one, share in zip(features, found, strict=True):
        cosine = [one @ t / np.linalg.norm(one) / np.linalg.norm(t) for t in train]
        nearest = sorted(range(50), key=lambda n: -cosine[n])[:20]
        weights = np.array([np.exp(cosine[n] / 0.07) for n in nearest])
        assert share == pytest.approx(weights[labels[nearest]].sum() / weights.sum())


def test_linear_is_the_minimum_that_newton_finds(rng: np.random.Generator):
    train, labels = rng.normal(2, 3, (80, 4)), rng.random(80) < 0.4
    features = rng.normal(2, 3, (9, 4))
    scale = np.append((train - train.mean(axis=0)) / train.std(axis=0), np.ones((80, 1)), axis=1)
    weights, penalty = np.zeros(5), np.diag([1.0, 1, 1, 1, 0])
    for _ in range(30):
        p = 1 / (1 + np.exp(-scale @ weights))
        hessian = scale.T @ (scale * (p * (1 - p))[:, None]) + penalty
        weights -= np.linalg.solve(hessian, scale.T @ (p - labels) + penalty @ weights)
    asked = np.append((features - train.mean(axis=0)) / train.std(axis=0), np.ones((9, 1)), axis=1)
    np.testing.assert_allclose(probes.linear(train, labels, features), asked @ weights, atol=1e-3)


def test_scikit_learn_as_a_second_implementation(rng: np.random.Generator):
    """The same to some digits; where the logits are the same to the last bit, scikit-learn may take over."""
    side = rng.normal(size=(5, 24))
    drawn = rng.normal(size=(2, 300, 5))
    train, features = (np.maximum(part @ side, 0).astype(np.float32) for part in drawn)
    labels, truth = (part[:, 0] + rng.normal(size=300) > 0.5 for part in drawn)

    def weights(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / probes.TEMPERATURE)

    neighbours: Any = KNeighborsClassifier(probes.NEIGHBOURS, metric="cosine", weights=weights)  # pyright: ignore
    neighbours.fit(train, labels)
    share = probes.knn(train, labels, features)
    np.testing.assert_allclose(share, neighbours.predict_proba(features)[:, 1], atol=1e-4)

    regression = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky", tol=1e-8))
    regression.fit(train.astype(np.float64), labels)
    logits, wanted = probes.linear(train, labels, features), regression.decision_function(features.astype(np.float64))
    np.testing.assert_allclose(logits, wanted, atol=0.02)
    assert not np.array_equal(logits, wanted)

    for score in (share, logits):
        assert probes.auc(score, truth) == pytest.approx(roc_auc_score(truth, score), abs=1e-12)


def test_a_dead_channel_says_nothing(rng: np.random.Generator):
    train, labels, features = rng.normal(size=(60, 3)), rng.random(60) < 0.5, rng.normal(size=(5, 3))
    dead = [np.append(part, np.full((len(part), 1), 2.0), axis=1).astype(np.float32) for part in (train, features)]
    np.testing.assert_allclose(
        probes.linear(dead[0], labels, dead[1]), probes.linear(train, labels, features), atol=1e-3
    )


@pytest.mark.parametrize("probe", [probes.knn, probes.linear])
def test_features_that_know_and_features_that_do_not(rng: np.random.Generator, probe):
    labels, truth = rng.random(400) < 0.3, rng.random(300) < 0.3
    train, val = rng.normal(size=(400, 16)), rng.normal(size=(300, 16))
    assert 0.4 < probes.auc(probe(train, labels, val), truth) < 0.6
    train[labels, 0] += 3
    val[truth, 0] += 3
    assert probes.auc(probe(train, labels, val), truth) > 0.9
