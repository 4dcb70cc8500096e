"""Toolkit that exports trained models, verifies the artifacts and measures their speed.

The functions are those of the command line: `train`, `export`, `calibrate`, `verify`, `bench`,
`optimize`, `deploy`, `bench_training`, `compare`, `run_study`, `write_report`, `parity_outputs`,
`parity_weights`, `inspect`, `doctor`, `models`. `load` opens a session that runs a model.
Heavy dependencies are imported only when a function needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.core.version import VERSION as __version__

if TYPE_CHECKING:
    from toolkit.deploying.deploy import deploy
    from toolkit.optimizing.optimize import optimize
    from toolkit.report.write import write_report
    from toolkit.steps.bench import bench
    from toolkit.steps.bench_training import bench_training
    from toolkit.steps.calibrate import calibrate
    from toolkit.steps.compare import compare
    from toolkit.steps.doctor import doctor
    from toolkit.steps.export import export
    from toolkit.steps.inspect import inspect
    from toolkit.steps.load import load
    from toolkit.steps.models import models
    from toolkit.steps.parity_outputs import parity_outputs
    from toolkit.steps.parity_weights import parity_weights
    from toolkit.steps.train import train
    from toolkit.steps.verify import verify
    from toolkit.study.run import run_study

__all__ = [
    "__version__",
    "bench",
    "bench_training",
    "calibrate",
    "compare",
    "deploy",
    "doctor",
    "export",
    "inspect",
    "load",
    "models",
    "optimize",
    "parity_outputs",
    "parity_weights",
    "run_study",
    "train",
    "verify",
    "write_report",
]


ELSEWHERE = {
    "deploy": "toolkit.deploying.deploy",
    "optimize": "toolkit.optimizing.optimize",
    "run_study": "toolkit.study.run",
    "write_report": "toolkit.report.write",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'toolkit' has no attribute {name!r}")
    import importlib

    from toolkit.core.siblings import ours

    with ours():
        module = ELSEWHERE.get(name, f"toolkit.steps.{name}")
        return getattr(importlib.import_module(module), name)
