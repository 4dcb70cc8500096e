"""How the resident size of this process grows, and growth that does not end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean, median_low

from toolkit.core.measurement import Block
from toolkit.core.memory import rss_bytes
from toolkit.measuring.timing import Clock

# Between one third of the blocks and the next. The kernel counts pages for each core and adds them
# up in batches, and allocators give memory back late: below it a difference means nothing.
GROWTH_BYTES = 2**20
FEWEST_BLOCKS = 6  # two a third


@contextmanager
def watched(part: str, parts: dict[str, int | None], clock: Clock) -> Iterator[None]:
    """Adds to `parts` how long the block takes and by how much the process grows, `<part>_ns` and
    `<part>_bytes`. The size is read outside of the time."""
    before = rss_bytes()
    began = clock()
    yield
    parts[f"{part}_ns"] = clock() - began
    after = rss_bytes()
    parts[f"{part}_bytes"] = None if before is None or after is None else after - before


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How far the resident size rose over so many runs."""

    size_bytes: int
    runs: float

    @property
    def bytes_per_run(self) -> float:
        return self.size_bytes / self.runs


def steady_growth(blocks: Sequence[Block]) -> Growth | None:
    """The growth from the first third of the blocks to the last, if it never came to rest.

    It did not where the medians of the thirds rise by more than GROWTH_BYTES each time. One late
    allocation, wherever it falls, lifts only one of them, since the lower median is a size that
    was read, never one halfway. None also for too few blocks and for unknown sizes.
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
