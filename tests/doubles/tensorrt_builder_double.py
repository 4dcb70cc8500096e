"""Stands in for TensorRT's Python module where engines are built.

TensorRT-RTX parses and builds, for compute capability 8.9, as TensorRT would on a GPU that has it;
timing caches are bytes of the double's own."""

from __future__ import annotations

from typing import Any

import tensorrt_rtx as rtx
from tensorrt_rtx import (  # noqa: F401  # the names of TensorRT
    BuilderFlag,
    IConstantLayer,
    IConvolutionLayer,
    IDeconvolutionLayer,
    ILayer,
    ILogger,
    IScaleLayer,
    NetworkDefinitionCreationFlag,
    OnnxParser,
    ProfilingVerbosity,
)

__version__ = "10.16.1.11"
MAGIC = b"FAKE TIMES"


class FakeTimingCache:
    def __init__(self, data: bytes) -> None:
        self.data = data or MAGIC

    def serialize(self) -> bytes:
        return self.data


class FakeBuilderConfig:
    """`given` is what its timing cache was made of; one that is for another GPU is not taken."""

    last: FakeBuilderConfig

    def __init__(self, real: Any) -> None:
        vars(self).update(real=real, cache=None, given=[])
        FakeBuilderConfig.last = self

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["real"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(vars(self)["real"], name, value)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> FakeTimingCache | None:
        self.given.append(serialized_timing_cache)
        known = not serialized_timing_cache or serialized_timing_cache.startswith(MAGIC)
        return FakeTimingCache(serialized_timing_cache) if known else None

    def set_timing_cache(self, cache: FakeTimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if b"another GPU" in cache.data:
            return False
        vars(self)["cache"] = cache
        return True

    def get_timing_cache(self) -> FakeTimingCache | None:
        return self.cache


class Builder:
    def __init__(self, logger: rtx.ILogger) -> None:
        self._real = rtx.Builder(logger)

    def create_network(self, flags: int) -> Any:
        return self._real.create_network(flags)

    def create_optimization_profile(self) -> Any:
        return self._real.create_optimization_profile()

    def create_builder_config(self) -> FakeBuilderConfig:
        return FakeBuilderConfig(self._real.create_builder_config())

    def build_serialized_network(self, network: Any, config: FakeBuilderConfig) -> Any:
        real = config.real
        real.num_compute_capabilities = 1
        real.set_compute_capability(rtx.ComputeCapability(89), 0)
        if config.cache is not None:
            config.cache.data += b" and one more build"
        return self._real.build_serialized_network(network, real)
