#!/usr/bin/env python3
"""Print what the parts of a test run had in common: counts, what was skipped, the slowest tests."""

import sys
import xml.etree.ElementTree as ET
from collections import Counter

SLOWEST = 10

outcomes, skipped, seconds, folders = Counter(), Counter(), Counter(), Counter()
counts = Counter()
for path in sys.argv[1:]:
    for case in ET.parse(path).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        taken = float(case.get("time", 0))
        seconds[name] += taken
        folder = case.get("classname").split(".")[1]
        folders[folder] += taken
        counts[folder] += 1
        found = next(
            (child for child in case if child.tag in ("skipped", "failure", "error")), None
        )
        if found is None:
            outcomes["passed"] += 1
        elif found.tag == "skipped" and found.get("type") == "pytest.xfail":
            outcomes["expected failures"] += 1
        elif found.tag == "skipped":
            outcomes["skipped"] += 1
            skipped[(found.get("message") or "").removeprefix("Skipped: ")] += 1
        else:
            outcomes["failed"] += 1
print("\nSeconds of tests and fixtures, over all processes:")
for folder, taken in folders.most_common():
    print(f"{taken:7.1f} s  {counts[folder]:5} tests in tests/{folder}")
print(f"\n{SLOWEST} slowest tests:")
for name, taken in seconds.most_common(SLOWEST):
    print(f"{taken:7.1f} s  {name}")
if skipped:
    print("\nSkipped:")
for reason, count in skipped.most_common():
    print(f"{count:5}  {reason}")
print("\n" + ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common()))
