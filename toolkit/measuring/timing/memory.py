"""Growth of this process's resident size, and detection of growth that does not stop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, groupby
from statistics import fmean, median_low

from toolkit.core.measurement import Block
from toolkit.core.memory import rss_bytes
from toolkit.measuring.timing.clock import Clock

# Least growth from one third of the blocks to the next. A smaller difference means nothing: the
# kernel counts pages per core and adds them up in batches, and allocators return memory late.
GROWTH_BYTES = 2**20
FEWEST_BLOCKS = 6  # two per third


@contextmanager
def watched(part: str, parts: dict[str, int | None], clock: Clock) -> Iterator[None]:
    """Store the duration of the block and the growth of the process in `parts`.

    The keys are `<part>_ns` and `<part>_bytes`; the latter is None if the size is unknown. The size
    is read outside the timed section.
    """
    before = rss_bytes()
    began = clock()
    yield
    parts[f"{part}_ns"] = clock() - began
    after = rss_bytes()
    parts[f"{part}_bytes"] = None if before is None or after is None else after - before


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Growth of the resident size over a number of runs."""

    size_bytes: int
    runs: float

    @property
    def bytes_per_run(self) -> float:
        return self.size_bytes / self.runs


def steady_growth(blocks: Sequence[Block]) -> Growth | None:
    """Return the largest growth of a process if all processes of the row kept growing, or None."""
    processes = [list(part) for _, part in groupby(blocks, key=lambda block: block.process)]
    found = [_growth(part) for part in processes]
    grown = [one for one in found if one is not None]
    if not grown or len(grown) < len(found):
        return None
    return max(grown, key=lambda growth: growth.size_bytes)


def _growth(blocks: Sequence[Block]) -> Growth | None:
    """Return the growth from the first to the last third of the blocks, or None if it stopped.

    Growth has not stopped if the median size rises by more than GROWTH_BYTES from each third to the
    next. A single late allocation, wherever it occurs, causes only one such rise, since the lower
    median is a size that was read and never a mean of two. Also returns None for fewer than
    FEWEST_BLOCKS blocks and for unknown sizes.
    """
    sizes = [block.rss_bytes for block in blocks if block.rss_bytes is not None]
    third = len(blocks) // 3
    if len(sizes) != len(blocks) or len(blocks) < FEWEST_BLOCKS:
        return None
    thirds = (slice(third), slice(third, -third), slice(-third, None))
    first, middle, last = (median_low(sizes[part]) for part in thirds)
    if min(middle - first, last - middle) <= GROWTH_BYTES:
        return None
    done = list(accumulate(len(block.lead) + len(block.samples) for block in blocks))
    runs = fmean(done[-third:]) - fmean(done[:third])
    return Growth(size_bytes=last - first, runs=runs)
