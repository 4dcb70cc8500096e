"""Source of run.py and pip requirements of a bundle, by runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toolkit.core.nvidia import INDEX

REQUIREMENTS: Mapping[str, Sequence[str]] = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "torch-export": ("torch",),
    "aotinductor": ("torch",),
    "onnxruntime-cuda": ("onnxruntime-gpu[cuda,cudnn]",),
    "onnxruntime-tensorrt": ("onnxruntime-gpu[cuda,cudnn]", "tensorrt>=10.13,<11", INDEX),
    "onnxruntime-nv-tensorrt-rtx": ("onnxruntime", "onnxruntime-ep-nv-tensorrt-rtx"),
    "tensorrt": ("tensorrt", "cuda-bindings", INDEX),
    "tensorrt-rtx": ("tensorrt-rtx", "cuda-bindings"),
}
"""Lines for pip by runtime: first the package to pin to the measured version, then the others."""

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


_FIXED = """settings = ort.SessionOptions()
settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
for one in ort.InferenceSession(path, providers=["CPUExecutionProvider"]).get_inputs():
    for axis, extent in zip(one.shape, feeds[one.name].shape):
        if isinstance(axis, str):
            settings.add_free_dimension_override_by_name(axis, extent)
tuning = {name: value for name, value in options["tuning"].items()
          if "cuda_graph" not in name}  # which is for many passes
"""
_BY_NAME = """session = ort.InferenceSession(path, settings, providers=[("{provider}", tuning)],
                               enable_fallback=0)
outputs = session.run(names, feeds)
"""
_NO_TF32 = "import os\nos.environ['NVIDIA_TF32_OVERRIDE'] = '0'\n"
_ENGINE = """
def done(found):
    if int(found[0]):
        sys.exit(f"CUDA says {found[0].name}")
    return found[1] if len(found) > 1 else None

engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(Path(path).read_bytes())
context, stream = engine.create_execution_context(), done(cuda.cudaStreamCreate())
arrays = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
for name, array in feeds.items():
    context.set_input_shape(name, array.shape)
for name in names:
    dtype = trt.nptype(engine.get_tensor_dtype(name))
    arrays[name] = np.empty(tuple(context.get_tensor_shape(name)), dtype)
memory = {name: done(cuda.cudaMalloc(max(1, array.nbytes))) for name, array in arrays.items()}
kind = cuda.cudaMemcpyKind
for name, address in memory.items():
    context.set_tensor_address(name, int(address))
for name in feeds:
    there, size = arrays[name].ctypes.data, arrays[name].nbytes
    done(cuda.cudaMemcpy(memory[name], there, size, kind.cudaMemcpyHostToDevice))
if not context.execute_async_v3(int(stream)):
    sys.exit("the engine did not run")
done(cuda.cudaStreamSynchronize(stream))
for name in names:
    there, size = arrays[name].ctypes.data, arrays[name].nbytes
    done(cuda.cudaMemcpy(there, memory[name], size, kind.cudaMemcpyDeviceToHost))
outputs = [arrays[name] for name in names]
"""


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
    "onnxruntime-cuda": _program(
        "import onnxruntime as ort",
        f"""ort.preload_dlls()
{_FIXED}tuning["use_tf32"] = "1" if tuning.pop("tf32", "") == "true" else "0"
{_BY_NAME.format(provider="CUDAExecutionProvider")}""",
    ),
    "onnxruntime-tensorrt": _program(
        f"{_NO_TF32}import onnxruntime as ort",
        f"""ort.preload_dlls()
{_FIXED}{_BY_NAME.format(provider="TensorrtExecutionProvider")}""",
    ),
    "onnxruntime-nv-tensorrt-rtx": _program(
        f"{_NO_TF32}import onnxruntime as ort\nimport onnxruntime_ep_nv_tensorrt_rtx as plugin",
        f"""{_FIXED}provider = plugin.get_ep_name()
ort.register_execution_provider_library(provider, plugin.get_library_path())
devices = [one for one in ort.get_ep_devices() if one.ep_name == provider]
settings.add_provider_for_devices(devices, tuning)
outputs = ort.InferenceSession(path, settings, enable_fallback=0).run(names, feeds)
""",
    ),
    "tensorrt": _program(
        "import tensorrt as trt\nfrom cuda.bindings import runtime as cuda", _ENGINE
    ),
    "tensorrt-rtx": _program(
        "import tensorrt_rtx as trt\nfrom cuda.bindings import runtime as cuda", _ENGINE
    ),
}
