"""What torch's own exporter gives for a member: prints a JSON object.

`exported` says whether it wrote a graph; `difference` is the largest difference of its outputs on
ONNX Runtime to those of the module, as a part of the largest value.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch.utils import _pytree as pytree


def main() -> None:
    file, _, name = sys.argv[1].rpartition(":")
    warnings.simplefilter("ignore")
    spec = importlib.util.spec_from_file_location("members", file)
    members = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(members)
    module, inputs = getattr(members, name)()
    inputs = {key: tensor.contiguous() for key, tensor in inputs.items()}
    first = next(tensor.shape[0] for tensor in inputs.values() if tensor.ndim)
    axes = {
        key: {0: torch.export.Dim.DYNAMIC} if tensor.ndim and tensor.shape[0] == first else None
        for key, tensor in inputs.items()
    }
    with tempfile.TemporaryDirectory() as place:
        path = str(Path(place) / "model.onnx")
        try:
            torch.onnx.export(module, (), path, kwargs=inputs, dynamo=True, dynamic_shapes=axes,
                              verbose=False)  # fmt: skip
        except Exception as error:
            told = str(error).strip().splitlines()
            print(json.dumps({"exported": False, "error": f"{type(error).__name__}: {told[:1]}"}))
            return
        session = onnxruntime.InferenceSession(path)
        feeds = {
            given.name: tensor.numpy()
            for given, tensor in zip(session.get_inputs(), inputs.values(), strict=True)
        }
        got = session.run(None, feeds)
    with torch.no_grad():
        expected = [t for t in pytree.tree_leaves(module(**inputs)) if isinstance(t, torch.Tensor)]
    apart = 0.0
    for mine, theirs in zip(got, expected, strict=False):
        theirs = theirs.numpy().astype(np.float64)
        scale = float(np.abs(theirs).max(initial=0.0)) or 1.0
        apart = max(apart, float(np.abs(mine - theirs).max(initial=0.0)) / scale)
    print(json.dumps({"exported": True, "difference": apart}))


main()
