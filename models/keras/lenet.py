"""LeNet in Keras."""

from __future__ import annotations

from typing import final

import keras
from keras import ops

from models.keras.base import KerasBuilder
from models.keras.layers import conv, dense, flatten, max_pool, rows
from toolkit.core.specs import ModelSpec


@final
class LeNetBuilder(KerasBuilder):
    """[N, 32, 32, 3] float32 -> [N, classes] float32."""

    def build(self, spec: ModelSpec) -> keras.Model:
        assert spec.task is not None
        images = rows(spec)
        x = max_pool(ops.relu(conv(images, "conv1", 6, 5)))
        x = max_pool(ops.relu(conv(x, "conv2", 16, 5)))
        x = flatten(x)
        x = ops.relu(dense(x, "fc1", 120))
        x = ops.relu(dense(x, "fc2", 84))
        return keras.Model(images, dense(x, "fc3", spec.task.outputs), name=spec.name)
