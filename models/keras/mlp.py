"""MLP in Keras."""

from __future__ import annotations

from typing import final

import keras
from keras import ops

from models.base import INPUT
from models.keras.base import KerasBuilder
from models.keras.layers import dense
from toolkit.core.specs import ModelSpec


@final
class MLPBuilder(KerasBuilder):
    """[N, features] float32 -> [N, outputs] float32."""

    def build(self, spec: ModelSpec) -> keras.Model:
        assert spec.task is not None
        features = keras.Input(spec.task.input_shape, dtype="float32", name=INPUT)
        x = ops.relu(dense(features, "fc1", spec.hyperparameters["hidden"]))
        return keras.Model(features, dense(x, "fc2", spec.task.outputs), name=spec.name)
