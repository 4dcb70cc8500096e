"""Of the double: memory, streams and the running of a program.

As on a GPU, a pass is only put in a queue, and what it gives is there when its stream was waited
for: until then it is NaN. More strictly than on a GPU, a copy to the host waits for nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import numpy as np
from torch.utils.dlpack import from_dlpack

from mlir_tensorrt import interpreter
from mlir_tensorrt.program import Program


class MTRTException(Exception): ...


class PointerType(Enum):
    host, device = 1, 2


class ScalarTypeCode(Enum):
    i1, i4, i8, i32, i64 = "bool", "int4", "int8", "int32", "int64"
    f16, f32, f8e4m3fn, bf16 = "float16", "float32", "float8", "bfloat16"


class MemRefValue(np.ndarray):
    """An array in host memory that says where it would lie."""

    address_space = PointerType.host

    @property
    def dtype(self) -> ScalarTypeCode:  # type: ignore[override]
        return ScalarTypeCode(self.view(np.ndarray).dtype.name)


def _memref(array: np.ndarray, space: PointerType) -> MemRefValue:
    made = array.view(MemRefValue)
    made.address_space = space
    return made


class Stream:
    ptr = 0

    def __init__(self) -> None:
        self.queue: list[Callable[[], None]] = []
        self.waits = 0

    def sync(self) -> None:
        self.waits += 1
        while self.queue:
            self.queue.pop(0)()


class RuntimeClient:
    def get_devices(self) -> list[str]:
        return ["GPU of the double"]

    def create_stream(self) -> Stream:
        return Stream()

    def create_memref(
        self,
        array: Any = None,
        *,
        shape: Sequence[int],
        dtype: ScalarTypeCode,
        device: str | None = None,
        stream: Stream | None = None,
    ) -> MemRefValue:
        made = np.zeros(tuple(shape), dtype.value)
        if array is not None:
            made[...] = np.frombuffer(array, dtype.value).reshape(made.shape)
        return _memref(made, PointerType.host if device is None else PointerType.device)

    def create_memref_view_from_dlpack(
        self, capsule: Any, assert_canonical_strides: bool
    ) -> MemRefValue:
        array = from_dlpack(capsule).numpy()
        if not array.flags.c_contiguous:
            given = [stride // array.itemsize for stride in array.strides]
            wanted = [s // array.itemsize for s in np.empty_like(array, order="C").strides]
            raise MTRTException(
                f"Given strides {given} do not match canonical strides {wanted} for shape "
                f"{list(array.shape)}"
            )
        return _memref(array, PointerType.host)

    def copy_to_device(self, *, host_memref: MemRefValue, device: str) -> MemRefValue:
        return _memref(np.array(host_memref.view(np.ndarray)), PointerType.device)

    def copy_to_host(self, *, device_memref: MemRefValue) -> MemRefValue:
        return _memref(np.array(device_memref.view(np.ndarray)), PointerType.host)


class _Signature:
    def __init__(self, results: int) -> None:
        self._results = results

    def get_num_results(self) -> int:
        return self._results


class Executable:
    def __init__(self, data: bytes) -> None:
        try:
            self.program = Program.from_bytes(data)
        except (ValueError, KeyError) as error:
            raise MTRTException(f"InternalError: no executable of the double: {error}") from error
        self._data = data

    def serialize(self) -> bytes:
        return self._data

    def get_signature(self, name: str) -> _Signature:
        assert name == "main"
        return _Signature(len(self.program.outputs))

    def get_data_segments(self) -> list[tuple[str, bytes]]:
        return [("double", self._data)]


class RuntimeSessionOptions:
    def __init__(self, *, num_devices: int, device_id: int) -> None: ...


class RuntimeSession:
    def __init__(self, options: RuntimeSessionOptions, executable: Executable) -> None:
        self._program = executable.program

    def execute_function(
        self, name: str, *, in_args: list[MemRefValue], stream: Stream, client: RuntimeClient
    ) -> list[MemRefValue]:
        try:
            found = interpreter.run(self._program, [each.view(np.ndarray) for each in in_args])
        except interpreter.RuntimeMismatchError as error:
            raise MTRTException(str(error)) from error
        made = [np.full_like(result, np.nan) for result in found]
        kept = [weakref.ref(each) for each in in_args]

        def pass_over_it() -> None:
            if any(each() is None for each in kept):
                raise MTRTException("a pass read memory that was let go")
            for result, array in zip(made, found, strict=True):
                result[...] = array

        stream.queue.append(pass_over_it)
        return [_memref(result, PointerType.device) for result in made]
