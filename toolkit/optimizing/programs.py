"""The program of a bundle, by runtime: what it takes to run a model as it was measured."""

from __future__ import annotations

from collections.abc import Mapping

REQUIREMENTS: Mapping[str, str] = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "torch-export": "torch",
    "aotinductor": "torch",
}
"""The package of each, on PyPI."""

_HEAD = '''"""Runs the model beside it: python run.py inputs.npz outputs.npz

inputs.npz holds an array for each input, by name, preprocessed as bundle.json says.
"""
import json, sys
from pathlib import Path
import numpy as np
{imports}
here = Path(__file__).resolve().parent
bundle = json.loads((here / "bundle.json").read_text())
options, path = bundle["options"], str(here / bundle["entry"])
feeds = dict(np.load(sys.argv[1]))
names = [spec["name"] for spec in bundle["signature"]["outputs"]]
'''
_TAIL = """np.savez(sys.argv[2], **dict(zip(names, map(np.asarray, outputs))))
"""
_IN_ORDER = """inputs = [torch.from_numpy(feeds[s["name"]]) for s in bundle["signature"]["inputs"]]
torch.set_num_threads(options["threads"])
"""
_PARTS = "outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]\n"


def _program(imports: str, body: str) -> str:
    return _HEAD.format(imports=imports) + body + _TAIL


PROGRAMS: Mapping[str, str] = {
    "onnxruntime": _program(
        "import onnxruntime as ort",
        """settings = ort.SessionOptions()
settings.intra_op_num_threads, settings.inter_op_num_threads = options["threads"], 1
levels = ort.GraphOptimizationLevel
for name, value in options["tuning"].items():
    if name == "graph_optimization_level":
        settings.graph_optimization_level = getattr(levels, f"ORT_ENABLE_{value.upper()}")
    else:
        settings.add_session_config_entry(name, value)
session = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
outputs = session.run(names, feeds)
""",
    ),
    "openvino": _program(
        "import openvino as ov",
        """config = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1,
          "INFERENCE_PRECISION_HINT": "f32",
          "INFERENCE_NUM_THREADS": options["threads"], **options["tuning"]}
model = ov.Core().compile_model(path, "CPU", config)
outputs = list(model(feeds).values())
""",
    ),
    "torch-export": _program(
        "import torch",
        f"""{_IN_ORDER}module = torch.export.load(path).module()
with torch.inference_mode():
    outputs = module(*inputs)
{_PARTS}""",
    ),
    "aotinductor": _program(
        "import torch",
        f"""{_IN_ORDER}module = torch._inductor.aoti_load_package(path)
with torch.inference_mode():
    outputs = module(*inputs)
{_PARTS}""",
    ),
}
