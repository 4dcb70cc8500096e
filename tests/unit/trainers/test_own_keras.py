"""A user's own Keras model: its names, its layout, dropout, batch norm, augmented images."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest

from tests.unit.trainers.jobs import images, job, losses, opened
from toolkit.core.errors import UsageError
from toolkit.trainers import TRAINERS
from toolkit.trainers.base import Job
from toolkit.trainers.run import epoch_of

SIDE = 8


def net(dropout: float = 0.5) -> keras.Model:
    """[N, SIDE, SIDE, 3] -> [N, 10], with a layer inside a model inside it."""
    head = keras.Sequential([keras.layers.Dropout(dropout), keras.layers.Dense(10)])
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.GlobalAveragePooling2D(),
            head,
        ]
    )


def own(mode: str, module: Callable[[], object] = net, **recipe: object) -> Job:
    return job("tensorflow", mode, images(10, SIDE), module=module, **recipe)


def test_weights_have_the_paths_of_the_variables_in_each_model_made():
    trainer = TRAINERS.create("tensorflow")
    names = [list(trainer.own_weights(net, 1)) for _ in range(2)]
    assert names[0] == names[1]
    assert any(name.endswith("conv2d/kernel") for name in names[0])
    assert len(names[0]) == 8
    assert not any("seed" in name for name in names[0])


def test_a_seed_gives_the_same_start():
    trainer = TRAINERS.create("tensorflow")
    one, same, other = (
        next(iter(trainer.own_weights(net, seed).values())).tobytes() for seed in (1, 1, 2)
    )
    assert one == same != other


@pytest.mark.parametrize("mode", TRAINERS.create("tensorflow").modes)
def test_dropout_and_running_statistics_repeat(mode: str):
    training = own(mode)
    epochs = [epoch_of(training.recipe, number, 10) for number in range(2)]
    with opened(training) as session:
        session.run_epoch(epochs[0])
        kept = session.state()
        first = session.run_epoch(epochs[1])
        end = session.state()
        session.restore(kept)
        again = session.run_epoch(epochs[1])
        assert again.losses.tobytes() == first.losses.tobytes()
        assert all(session.state()[name].tobytes() == end[name].tobytes() for name in end)
        moved = [name for name in training.weights if name.endswith("moving_variance")]
        assert len(moved) == 1
        assert not np.array_equal(session.weights()[moved[0]], training.weights[moved[0]])


@pytest.mark.parametrize("mode", ["fit", "epoch"])
def test_augmented_images_are_the_same_in_every_mode(mode: str):
    found = []
    for loop in ("eager", mode):
        training = own(loop, lambda: net(0.0), augmentation=("crop", "flip"))
        with opened(training) as session:
            found.append(losses(session, training))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
    plain = own("eager", lambda: net(0.0))
    with opened(plain) as session:
        assert not np.allclose(losses(session, plain), found[0], rtol=1e-3)


def test_channels_first_are_taken_as_they_are():
    def first() -> keras.Model:
        flat = keras.layers.Flatten()
        return keras.Sequential([keras.Input((3, SIDE, SIDE)), flat, keras.layers.Dense(10)])

    training = own("eager", first)
    with opened(training) as session:
        outputs = session.predict(training.train.inputs)
    flat = training.train.inputs.reshape(10, -1)
    (kernel,) = (w for name, w in training.weights.items() if name.endswith("kernel"))
    expected = flat @ kernel
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_a_model_that_does_not_fit_or_is_none_is_refused():
    with pytest.raises(UsageError, match="does not fit a task"):
        opened(own("eager", lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(10)])))
    with pytest.raises(UsageError, match=r"expected a keras\.Model"):
        own("eager", lambda: 7)
    with pytest.raises(UsageError, match="Keras"):
        TRAINERS.create("jax").own_weights(net, 1)
