"""Options of ONNX Runtime's GPU providers, by the provider's names, and options of the toolkit.

Options that hold addresses of the caller's memory are left out. `tf32` replaces `use_tf32`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from runtimes.onnxruntime.session import CHOICES, FIELDS
from toolkit.core.errors import unknown_name
from toolkit.core.session import SessionOptions, parse_value

CUDA = frozenset(
    {
        "arena_extend_strategy", "cudnn_conv1d_pad_to_nc1d", "cudnn_conv_algo_search",
        "cudnn_conv_use_max_workspace", "do_copy_in_default_stream",
        "enable_cuda_graph", "enable_skip_layer_norm_strict_mode", "fuse_conv_bias",
        "gpu_mem_limit", "prefer_nhwc", "sdpa_kernel", "tunable_op_enable",
        "tunable_op_max_tuning_duration_ms", "tunable_op_tuning_enable",
        "use_ep_level_unified_stream",
    }
)  # fmt: skip
TENSORRT = frozenset(
    {
        "trt_auxiliary_streams", "trt_bf16_enable", "trt_build_heuristics_enable",
        "trt_builder_optimization_level", "trt_context_memory_sharing_enable",
        "trt_cuda_graph_enable", "trt_detailed_build_log", "trt_dla_core", "trt_dla_enable",
        "trt_dump_subgraphs", "trt_engine_hw_compatible", "trt_extra_plugin_lib_paths",
        "trt_force_sequential_engine_build", "trt_force_timing_cache", "trt_fp16_enable",
        "trt_int8_calibration_table_name", "trt_int8_enable",
        "trt_int8_use_native_calibration_table", "trt_layer_norm_fp32_fallback",
        "trt_max_partition_iterations", "trt_max_workspace_size", "trt_min_subgraph_size",
        "trt_op_types_to_exclude", "trt_preview_features", "trt_profile_max_shapes",
        "trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_sparsity_enable",
        "trt_tactic_sources", "trt_timing_cache_enable", "trt_timing_cache_path",
    }
)  # fmt: skip
NV_TENSORRT_RTX = frozenset(
    {
        "enable_cuda_graph", "nv_detailed_build_log", "nv_dump_subgraphs", "nv_max_shared_mem_size",
        "nv_max_workspace_size", "nv_multi_profile_enable", "nv_op_types_to_exclude",
        "nv_persistent_context_memory", "nv_profile_max_shapes", "nv_profile_min_shapes",
        "nv_profile_opt_shapes", "nv_use_sync_gpu_allocator", "nv_weight_streaming_budget",
    }
)  # fmt: skip

# Options that allow TensorRT to choose a lower precision than float32 for any layer.
LOWERING = ("trt_bf16_enable", "trt_fp16_enable", "trt_int8_enable")
TRUE = frozenset({"1", "true", "True"})

OURS: Mapping[str, bool] = {
    "allow_cpu_nodes": False,
    "allow_cuda_nodes": False,
    "engine_cache": True,
    "tf32": False,
}
"""Options of the toolkit, with their defaults."""


@dataclass(frozen=True, kw_only=True)
class GpuOptions:
    """Options of a GPU session: `session` for any provider, `provider` for its own provider."""

    session: SessionOptions
    provider: Mapping[str, str]
    allow_cpu_nodes: bool
    allow_cuda_nodes: bool
    engine_cache: bool
    tf32: bool

    @property
    def lowered(self) -> bool:
        """Whether TensorRT may compute in a lower precision than the graph's."""
        return any(self.provider.get(name) in TRUE for name in LOWERING)


def parse(
    options: SessionOptions, *, runtime: str, provider: frozenset[str], ours: frozenset[str]
) -> GpuOptions:
    """Return the options in `options.tuning`, sorted into those of GpuOptions.

    `provider` and `ours` are the names of the options that the runtime has. Raise UnknownNameError
    for any other name, and UsageError if an option in `ours` is not a bool.
    """
    known = {*provider, *ours, *CHOICES, *FIELDS}
    given: dict[str, str] = {}
    session: dict[str, str] = {}
    flags = dict(OURS)
    for name, text in options.tuning.items():
        if "." in name or name in CHOICES or name in FIELDS:
            session[name] = text
        elif name in ours:
            flags[name] = parse_value(name, text, bool)
        elif name in provider:
            given[name] = text
        else:
            raise unknown_name(f"option of {runtime}", name, known)
    return GpuOptions(session=replace(options, tuning=session), provider=given, **flags)
