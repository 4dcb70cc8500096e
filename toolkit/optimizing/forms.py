"""Creation of the variants of a search, each made and verified once."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from exporters import ROUTES
from exporters.base import ExportOptions
from toolkit.core.artifact import Artifact
from toolkit.core.errors import ToolkitError
from toolkit.core.files import wrapping_os_errors
from toolkit.core.nvidia import driver
from toolkit.core.progress import Progress
from toolkit.exporting.export import export
from toolkit.optimizing.candidates import ENGINES, METHODS, VariantRecipe
from toolkit.quantization.calibrate import calibrate
from toolkit.sources.inputs import InputRequest
from toolkit.sources.labelled_data import BATCH
from toolkit.sources.resolve import candidates, open_artifact

MIXED = METHODS[-1]
Forms = tuple[Artifact, ...]
"""Artifact, then those it was made from; a runtime opens the first one that it supports."""


@dataclass(frozen=True, kw_only=True)
class CalibrationData:
    """Data set on which INT8 variants are calibrated, on other samples than the test samples."""

    name: str
    settings: dict[str, object]
    directory: Path | None


@final
@dataclass(kw_only=True)
class VariantMaker:
    """Maker of variants of `given`, which was opened from `path`, in `directory`.

    Variants that are already there are reused. Outputs are compared on `request`, and INT8 variants
    are calibrated on `data`. Engines are optimised for `batch`, and accept batches of at least the
    size that accuracy checks use.
    """

    given: Artifact
    path: Path
    directory: Path
    request: InputRequest
    data: CalibrationData
    max_drop: float
    batch: int
    progress: Progress
    _made: dict[VariantRecipe, Forms | ToolkitError] = field(default_factory=dict)

    def make(self, form: VariantRecipe) -> Forms:
        """Return the artifacts of a variant, which is made at the first call.

        Raises ToolkitError if it cannot be made, the same error at each call.
        """
        if form not in self._made:
            try:
                self._made[form] = self._make(form)
            except ToolkitError as error:
                self._made[form] = error
        found = self._made[form]
        if isinstance(found, ToolkitError):
            raise found
        return found

    def _make(self, form: VariantRecipe) -> Forms:
        as_given = form.target == self.given.format and form == VariantRecipe(target=form.target)
        if form.target is None or as_given:
            return candidates(self.given)
        place = self.directory / form.name
        if place.exists():
            try:
                return candidates(open_artifact(place))
            except ToolkitError as error:
                self.progress.note(f"warning: {error.problem} {form.name} is made again.")
                with wrapping_os_errors(f"remove {place}"):
                    shutil.rmtree(place)
        source = self.given if form.parent is None else self.make(form.parent)[0]
        path = self.path if source is self.given else source.directory
        self.progress.note(f"make {form.name}")
        engine = form.target in ENGINES.values()
        if form.preset is not None and not engine:
            calibrate(
                path,
                data=self.data.name,
                data_settings=self.data.settings,
                data_dir=self.data.directory,
                out=place,
                preset=form.preset,
                **(
                    {"max_drop": self.max_drop} if form.method == MIXED else {"method": form.method}
                ),
            )
        else:
            passes = form.passes if form.batch is None else (f"static-batch={form.batch}",)
            export(
                path,
                to=form.target,
                out=place,
                passes=() if form.preset else passes,
                inputs=self.request,
                options=self._engine(form.target, source) if engine else None,
            )
        return candidates(open_artifact(place))

    def _engine(self, target: str, source: Artifact) -> ExportOptions:
        """Return the options of an engine for this machine's GPU.

        A model with a dynamic batch gets an engine for all batches from 1 to the larger of `batch`
        and BATCH.
        """
        free = isinstance(source.signature.batch_axis, str)
        gpu = driver().gpus[0]
        heeded: dict[str, Any] = {
            "batches": (1, self.batch, max(self.batch, BATCH)) if free else None,
            "compute_capabilities": (gpu.capability,),
        }
        known = ROUTES[target].options
        return ExportOptions(**{name: heeded[name] for name in heeded if name in known})
