"""Figures of rounds, for each process of a row."""

from __future__ import annotations

import numpy as np

from toolkit.core.measurement import Measurement
from toolkit.measuring.figures.statistics import Spread, spread_of


def round_ratios(row: Measurement, baseline: Measurement) -> list[np.ndarray]:
    """Return the ratios of the medians of each round, for each process.

    Rounds in which one of the two has no samples are left out, as are those in which the median of
    the baseline is 0.
    """
    theirs = {
        (block.process, block.round): float(np.median(block.samples))
        for blocks in baseline.blocks_of_processes
        for block in blocks
    }
    return [
        np.array(
            [
                float(np.median(block.samples)) / theirs[block.process, block.round]
                for block in blocks
                if theirs.get((block.process, block.round))
            ]
        )
        for blocks in row.blocks_of_processes
    ]


def median_spread(measurement: Measurement) -> Spread | None:
    """Return how the medians of processes differ, None with too few processes or blocks."""
    return spread_of(
        [
            np.array([np.median(block.samples) for block in blocks])
            for blocks in measurement.blocks_of_processes
        ]
    )
