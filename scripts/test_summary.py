#!/usr/bin/env python3
"""Print what the parts of a test run had in common: counts, what was skipped, the slowest tests."""

import sys
import xml.etree.ElementTree as ET
from collections import Counter

SLOWEST = 10

outcomes, skipped, seconds = Counter(), Counter(), Counter()
folders, files, counts = Counter(), Counter(), Counter()
for path in sys.argv[1:]:
    for case in ET.parse(path).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        taken = float(case.get("time", 0))
        seconds[name] += taken
        parts = case.get("classname").split(".")
        folder = parts[1]
        folders[folder] += taken
        end = next(i for i, part in enumerate(parts) if part.startswith("test_")) + 1
        files["/".join(parts[:end]) + ".py"] += taken
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
print(f"\n{SLOWEST} slowest files:")
for file, taken in files.most_common(SLOWEST):
    print(f"{taken:7.1f} s  {file}")
print(f"\n{SLOWEST} slowest tests:")
for name, taken in seconds.most_common(SLOWEST):
    print(f"{taken:7.1f} s  {name}")
if skipped:
    print("\nSkipped:")
for reason, count in skipped.most_common():
    print(f"{count:5}  {reason}")
print("\n" + ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common()))
