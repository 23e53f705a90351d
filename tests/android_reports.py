"""What Maven's last run of the Android modules' tests found: a line for each suite, from surefire's reports."""

from __future__ import annotations

from xml.etree import ElementTree

from android_build import ANDROID


def main() -> None:
    """Prints the suites and a total."""
    total = 0
    for report in sorted(ANDROID.glob("*/target/surefire-reports/TEST-*.xml")):
        suite = ElementTree.parse(report).getroot()
        skipped = f", {suite.get('skipped')} skipped" if suite.get("skipped") != "0" else ""
        print(f"{suite.get('tests'):>4} {suite.get('name')}{skipped}")
        total += int(suite.get("tests", 0))
    print(f"{total:>4} in all")


if __name__ == "__main__":
    main()
