"""AlexNet in Keras."""

from __future__ import annotations

from typing import final

import keras
from keras import ops

from models.keras.base import KerasBuilder
from models.keras.layers import conv, dense, dropout, flatten, max_pool, rows
from toolkit.core.specs import ModelSpec


@final
class AlexNetBuilder(KerasBuilder):
    """[N, 32, 32, 3] float32 -> [N, classes] float32."""

    def build(self, spec: ModelSpec) -> keras.Model:
        assert spec.task is not None
        rate = spec.hyperparameters["dropout"]
        images = rows(spec)
        x = max_pool(ops.relu(conv(images, "conv1", 64, 3, stride=2, pad=1)))
        x = max_pool(ops.relu(conv(x, "conv2", 192, 3, pad=1)))
        x = ops.relu(conv(x, "conv3", 384, 3, pad=1))
        x = ops.relu(conv(x, "conv4", 256, 3, pad=1))
        x = max_pool(ops.relu(conv(x, "conv5", 256, 3, pad=1)))
        x = flatten(x)
        x = dropout(ops.relu(dense(x, "fc1", 4096)), rate)
        x = dropout(ops.relu(dense(x, "fc2", 4096)), rate)
        return keras.Model(images, dense(x, "fc3", spec.task.outputs), name=spec.name)
