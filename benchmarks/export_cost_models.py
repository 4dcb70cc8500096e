"""Models from 0.06 to 110 million parameters, each with example inputs by name."""

from __future__ import annotations

import torch
from torch import nn

Made = tuple[nn.Module, dict[str, torch.Tensor]]


def lenet() -> Made:
    made = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(),
        nn.Linear(84, 10),
    )  # fmt: skip
    return made.eval(), {"input": torch.randn(2, 1, 28, 28)}


class Residual(nn.Module):
    def __init__(self, wide: int, wider: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(wide, wider, 3, stride, 1, bias=False), nn.BatchNorm2d(wider), nn.ReLU(),
            nn.Conv2d(wider, wider, 3, 1, 1, bias=False), nn.BatchNorm2d(wider),
        )  # fmt: skip
        same = stride == 1 and wide == wider
        self.skip = nn.Identity() if same else nn.Conv2d(wide, wider, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.skip(x))


def resnet18() -> Made:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
                               nn.MaxPool2d(3, 2, 1)]  # fmt: skip
    wide = 64
    for wider in (64, 128, 256, 512):
        layers += [Residual(wide, wider, 1 if wider == 64 else 2), Residual(wider, wider, 1)]
        wide = wider
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)]
    return nn.Sequential(*layers).eval(), {"input": torch.randn(2, 3, 224, 224)}


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 32, 3, 2, 1)
        self.deeper = nn.Conv2d(32, 64, 3, 2, 1)
        self.up = nn.ConvTranspose2d(64, 32, 2, 2)
        self.last = nn.ConvTranspose2d(64, 4, 2, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        a = torch.relu(self.down(image))
        b = torch.relu(self.up(torch.relu(self.deeper(a))))
        return self.last(torch.cat([a, b], 1))


def unet() -> Made:
    return UNet().eval(), {"image": torch.randn(2, 3, 128, 128)}


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(64, 256, 2, batch_first=True)
        self.head = nn.Linear(256, 10)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        return self.head(self.cell(sound)[0][:, -1])


def lstm() -> Made:
    return Lstm().eval(), {"sound": torch.randn(2, 50, 64)}


def _encoder(width: int, layers: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        width, width // 64, 4 * width, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


class Vit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 384, 16, 16)
        self.first = nn.Parameter(torch.randn(1, 1, 384))
        self.positions = nn.Parameter(torch.randn(1, 197, 384))
        self.encoder = _encoder(384, 12)
        self.head = nn.Linear(384, 1000)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.encoder(x)[:, 0])


def vit_small() -> Made:
    return Vit().eval(), {"image": torch.randn(2, 3, 224, 224)}


class Bert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30522, 768)
        self.positions = nn.Embedding(512, 768)
        self.encoder = _encoder(768, 12)
        self.pooler = nn.Linear(768, 768)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        return torch.tanh(self.pooler(self.encoder(x)[:, 0]))


def bert_base() -> Made:
    return Bert().eval(), {"ids": torch.randint(0, 30522, (2, 128))}
