"""Models of keras.applications with random weights, and Keras models of sequences and of text."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import layers

SMALL = (64, 64, 3)
Member = Callable[[], keras.Model]


def application(name: str, shape: tuple[int, int, int] = SMALL, **settings: object) -> Member:
    def make() -> keras.Model:
        keras.utils.set_random_seed(0)
        build = getattr(keras.applications, name)
        return build(weights=None, input_shape=shape, classes=7, **settings)

    return make


MobileNet = application("MobileNet", alpha=0.25)
KerasMobileNetV2 = application("MobileNetV2", alpha=0.35)
MobileNetV3Small = application("MobileNetV3Small")
EfficientNetB0 = application("EfficientNetB0")
EfficientNetV2B0 = application("EfficientNetV2B0")
DenseNet121 = application("DenseNet121")
ResNet50 = application("ResNet50")
ResNet50V2 = application("ResNet50V2")
NasNetMobile = application("NASNetMobile", (224, 224, 3))
InceptionV3 = application("InceptionV3", (75, 75, 3))
Xception = application("Xception", (71, 71, 3))
ConvNeXtTiny = application("ConvNeXtTiny")
Vgg16 = application("VGG16", (32, 32, 3))


def KerasLstm() -> keras.Model:
    x = keras.Input((7, 6))
    h = layers.Bidirectional(layers.LSTM(8, return_sequences=True))(x)
    return keras.Model(x, layers.Dense(3)(layers.LSTM(8)(h)))


def KerasGru() -> keras.Model:
    return keras.Sequential([keras.Input((7, 6)), layers.GRU(8), layers.Dense(3)])


def KerasText() -> keras.Model:
    x = keras.Input((12,), dtype="int32")
    h = layers.Embedding(50, 16)(x)
    h = layers.Conv1D(16, 3, padding="same", activation="relu")(h)
    return keras.Model(x, layers.Dense(3, activation="softmax")(layers.GlobalMaxPooling1D()(h)))


def KerasAttention() -> keras.Model:
    x = keras.Input((12,), dtype="int32")
    h = layers.Embedding(50, 16)(x)
    a = layers.MultiHeadAttention(2, 8)(h, h)
    h = layers.LayerNormalization()(layers.Add()([h, a]))
    h = layers.Dense(32, activation="gelu")(h)
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(h)))


def KerasUNet() -> keras.Model:
    x = keras.Input((16, 16, 3))
    a = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    b = layers.Conv2D(16, 3, strides=2, padding="same")(a)
    b = layers.ReLU()(layers.BatchNormalization()(b))
    c = layers.UpSampling2D(2, interpolation="bilinear")(b)
    d = layers.Concatenate()([a, c])
    return keras.Model(x, layers.Conv2DTranspose(4, 2, strides=2)(layers.SeparableConv2D(8, 3)(d)))
