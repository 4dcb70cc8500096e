"""Models of torch.nn, diffusers and torch_geometric with random weights and example inputs."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrizations

Made = tuple[nn.Module, dict[str, torch.Tensor]]


def _rows(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


class _Recurrent(nn.Module):
    def __init__(self, cell: nn.Module, width: int) -> None:
        super().__init__()
        self.cell = cell
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cell(x)[0][:, -1])


def Lstm() -> Made:
    cell = nn.LSTM(6, 8, 2, batch_first=True, bidirectional=True)
    return _Recurrent(cell, 16).eval(), {"x": _rows(2, 7, 6)}


def Gru() -> Made:
    return _Recurrent(nn.GRU(6, 8, batch_first=True), 8).eval(), {"x": _rows(2, 7, 6)}


def Rnn() -> Made:
    return _Recurrent(nn.RNN(6, 8, batch_first=True), 8).eval(), {"x": _rows(2, 7, 6)}


def TransformerEncoder() -> Made:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval(), {
        "src": _rows(2, 7, 16)
    }


def Transformer() -> Made:
    made = nn.Transformer(16, 4, 1, 1, 32, batch_first=True)
    return made.eval(), {"src": _rows(2, 7, 16), "tgt": _rows(2, 5, 16)}


def WeightNorm() -> Made:
    made = nn.Sequential(
        parametrizations.weight_norm(nn.Conv1d(4, 8, 3, padding=1)), nn.ELU(),
        parametrizations.weight_norm(nn.ConvTranspose1d(8, 4, 4, 2)),
    )  # fmt: skip
    return made.eval(), {"input": _rows(2, 4, 9)}


def SpectralNorm() -> Made:
    made = nn.Sequential(
        parametrizations.spectral_norm(nn.Conv2d(3, 8, 3)), nn.LeakyReLU(0.2), nn.Flatten(),
        parametrizations.spectral_norm(nn.Linear(8 * 36, 2)),
    )  # fmt: skip
    return made.eval(), {"input": _rows(2, 3, 8, 8)}


class _Net(nn.Module):
    """Convolutions, group and instance norms, interpolation and pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=2)
        self.instance = nn.InstanceNorm2d(16, affine=True)
        self.third = nn.Conv2d(16, 12, 1)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = nn.functional.silu(self.norm(self.first(x)))
        h = nn.functional.gelu(self.instance(self.second(h)))
        h = self.shuffle(self.third(h))
        return nn.functional.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)


def Norms() -> Made:
    net = _Net()
    for norm in (net.norm, net.instance):  # ones and zeros until they are trained
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return net.eval(), {"x": _rows(2, 3, 12, 12)}


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.gate = nn.Parameter(torch.tensor(0.3))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.table(ids)) * self.gate
        return h @ self.table.weight.T


def TiedEmbedding() -> Made:
    return _Tied().eval(), {"ids": torch.randint(0, 20, (2, 5))}


def UNet2d() -> Made:
    from diffusers import UNet2DModel

    made = UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3, layers_per_block=1,
        block_out_channels=(16, 32), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return made.eval(), {"sample": _rows(2, 3, 16, 16), "timestep": torch.tensor([3, 7])}


def UNetConditional() -> Made:
    from diffusers import UNet2DConditionModel

    made = UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=1,
        block_out_channels=(16, 32), norm_num_groups=4, cross_attention_dim=16,
        attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    return made.eval(), {
        "sample": _rows(2, 4, 16, 16), "timestep": torch.tensor([3, 7]),
        "encoder_hidden_states": _rows(2, 5, 16),
    }  # fmt: skip


def Vae() -> Made:
    from diffusers import AutoencoderKL

    made = AutoencoderKL(
        block_out_channels=(16, 32), latent_channels=4, norm_num_groups=4, sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    return made.eval(), {"sample": _rows(2, 3, 16, 16)}


def Dit() -> Made:
    from diffusers import DiTTransformer2DModel

    made = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, num_layers=1,
        sample_size=8, patch_size=2, num_embeds_ada_norm=10,
    )  # fmt: skip
    return made.eval(), {
        "hidden_states": _rows(2, 4, 8, 8), "timestep": torch.tensor([3, 7]),
        "class_labels": torch.tensor([1, 2]),
    }  # fmt: skip


class _Graph(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        from torch_geometric import nn as geometric

        make = getattr(geometric, kind)
        self.first, self.second = make(6, 8), make(8, 3)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x, edges).relu(), edges)


def _graph(kind: str) -> Made:
    edges = torch.tensor([[0, 1, 2, 3, 4, 1], [1, 2, 3, 4, 0, 3]])
    return _Graph(kind).eval(), {"x": _rows(5, 6), "edges": edges}


def Gcn() -> Made:
    return _graph("GCNConv")


def Sage() -> Made:
    return _graph("SAGEConv")


def Gat() -> Made:
    return _graph("GATConv")
