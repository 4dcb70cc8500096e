"""IDSIA net in Keras."""

from __future__ import annotations

from typing import final

import keras
from keras import ops

from models.keras.base import KerasBuilder
from models.keras.layers import conv, dense, flatten, max_pool, rows
from toolkit.core.specs import ModelSpec


@final
class IDSIABuilder(KerasBuilder):
    """[N, 48, 48, 3] float32 -> [N, classes] float32."""

    def build(self, spec: ModelSpec) -> keras.Model:
        assert spec.task is not None
        images = rows(spec)
        x = max_pool(ops.relu(conv(images, "conv1", 100, 3)))
        x = max_pool(ops.relu(conv(x, "conv2", 150, 4)))
        x = max_pool(ops.relu(conv(x, "conv3", 250, 3)))
        x = ops.relu(dense(flatten(x), "fc1", 230))
        return keras.Model(images, dense(x, "fc2", spec.task.outputs), name=spec.name)
