"""A double of ONNX Runtime's CUDA provider, in each process that has this folder on PYTHONPATH.

What is asked of a GPU is done by the real CPU provider, and said to have run on a GPU: no time of
it means anything. The driver is tests/fake_libcuda.c.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
NO_FALLBACK = "session.disable_cpu_ep_fallback"


def alter_onnxruntime(ort: ModuleType) -> None:
    class Session(ort.InferenceSession):
        def __init__(self, path: Any, settings: Any = None, **options: Any) -> None:
            names = [one if isinstance(one, str) else one[0] for one in options.pop("providers")]
            self._said = [*names, CPU] if CUDA in names else names
            super().__init__(path, settings, providers=[CPU], **options)

        def get_providers(self) -> list[str]:
            return list(self._said)

    class Settings(ort.SessionOptions):
        def add_session_config_entry(self, name: str, value: str) -> None:
            if name != NO_FALLBACK:
                super().add_session_config_entry(name, value)

    make = ort.OrtValue.ortvalue_from_shape_and_type
    ort.InferenceSession, ort.SessionOptions = Session, Settings
    ort.OrtValue.ortvalue_from_shape_and_type = lambda shape, kind, *device: make(shape, kind)
    ort.get_available_providers = lambda: [CUDA, CPU]


def alter_devices(module: ModuleType) -> None:
    module.DEVICES[CPU] = "cuda"


ALTERED: dict[str, Callable[[ModuleType], None]] = {
    "onnxruntime": alter_onnxruntime,
    "runtimes.onnxruntime.device_session": alter_devices,
}


class Altering(MetaPathFinder):
    """Alters a module once it was imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in ALTERED:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_alter(module: ModuleType) -> None:
            run(module)
            ALTERED[name](module)

        spec.loader.exec_module = run_and_alter
        return spec


sys.meta_path.insert(0, Altering())
