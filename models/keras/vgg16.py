"""VGG16 in Keras."""

from __future__ import annotations

from typing import final

import keras
from keras import ops

from models.keras.base import KerasBuilder
from models.keras.layers import batch_norm, conv, dense, dropout, flatten, max_pool, rows
from models.vgg16 import HIDDEN, STAGES
from toolkit.core.specs import ModelSpec


@final
class VGG16Builder(KerasBuilder):
    """[N, 32, 32, 3] float32 -> [N, classes] float32."""

    def build(self, spec: ModelSpec) -> keras.Model:
        assert spec.task is not None
        rate = spec.hyperparameters["dropout"]
        x = images = rows(spec)
        for stage, widths in enumerate(STAGES):
            for at, width in enumerate(widths):
                x = conv(x, f"stages.{stage}.convs.{at}", width, 3, pad=1)
                x = ops.relu(batch_norm(x, f"stages.{stage}.norms.{at}"))
            x = max_pool(x)
        x = flatten(x)
        x = dropout(ops.relu(dense(x, "fc1", HIDDEN)), rate)
        x = dropout(ops.relu(dense(x, "fc2", HIDDEN)), rate)
        return keras.Model(images, dense(x, "fc3", spec.task.outputs), name=spec.name)
