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
    from toolkit.benchmarking.bench import bench
    from toolkit.benchmarking.bench_training import bench_training
    from toolkit.benchmarking.compare import compare
    from toolkit.deploying.deploy import deploy
    from toolkit.environment.doctor import doctor
    from toolkit.exporting.check_outputs import parity_outputs
    from toolkit.exporting.check_weights import parity_weights
    from toolkit.exporting.export import export
    from toolkit.optimizing.optimize import optimize
    from toolkit.quantization.calibrate import calibrate
    from toolkit.report.write import write_report
    from toolkit.sources.inspect import inspect
    from toolkit.sources.list_models import models
    from toolkit.sources.load import load
    from toolkit.study.run import run_study
    from toolkit.training.train import train
    from toolkit.verification.verify import verify

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


MODULES = {
    "bench": "toolkit.benchmarking.bench",
    "bench_training": "toolkit.benchmarking.bench_training",
    "calibrate": "toolkit.quantization.calibrate",
    "compare": "toolkit.benchmarking.compare",
    "deploy": "toolkit.deploying.deploy",
    "doctor": "toolkit.environment.doctor",
    "export": "toolkit.exporting.export",
    "inspect": "toolkit.sources.inspect",
    "load": "toolkit.sources.load",
    "models": "toolkit.sources.list_models",
    "optimize": "toolkit.optimizing.optimize",
    "parity_outputs": "toolkit.exporting.check_outputs",
    "parity_weights": "toolkit.exporting.check_weights",
    "run_study": "toolkit.study.run",
    "train": "toolkit.training.train",
    "verify": "toolkit.verification.verify",
    "write_report": "toolkit.report.write",
}
"""Module of each public function."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'toolkit' has no attribute {name!r}")
    import importlib

    from toolkit.core.import_isolation import toolkit_imports

    with toolkit_imports():
        return getattr(importlib.import_module(MODULES[name]), name)
