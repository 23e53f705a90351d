"""Fuzzes every reader, in Python with atheris, in Kotlin with Jazzer: `python run.py [TARGET ...] [--seconds 60]`.

Takes bundles, of which it makes the first inputs (`make demo`). Prints how many inputs each target had and what was
found; exit status 1 after a find, whose input is kept in build/fuzz. One target at a time, in bounded memory.
Leaves out: what a target is (targets.py; core's Fuzz.kt). Both fuzzers are libFuzzer underneath and take its flags.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import android_build  # noqa: E402
from targets import SCRATCH, TARGETS  # noqa: E402

REPOSITORY = HERE.parents[1]
FOUND = REPOSITORY / "build/fuzz"
MEMORY = 3000  # megabytes resident: Jazzer's JVM has its heap and libFuzzer's tables
HEAP = "-Xmx1500m"
SLOWEST = 10  # seconds for one input
MUTANTS = 200  # of a seed to begin with, made by mutation.py: Jazzer knows nothing of JSON
KOTLIN = {
    "kotlin_json": "Json",
    "kotlin_tensor_file": "TensorFile",
    "kotlin_manifest": "Manifest",
    "kotlin_golden": "Golden",
    "kotlin_tables": "Tables",
    "kotlin_encode": "Encode",
}
EXECUTIONS = re.compile(r"stat::number_of_executed_units: (\d+)|Done (\d+) runs")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help=", ".join((*TARGETS, *KOTLIN)))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--bundles", type=Path, default=REPOSITORY / "demo-bundles")
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - {*TARGETS, *KOTLIN}
    if unknown:
        parser.error(f"no target {min(unknown)}: {', '.join((*TARGETS, *KOTLIN))}")
    bundles = sorted(path.parent for path in arguments.bundles.glob("*/manifest.json"))
    if not bundles:
        parser.error(f"no bundle in {arguments.bundles}: run make demo")
    lacking = {"python": _missing_atheris(), "kotlin": android_build.missing()}
    finds = 0
    for name in arguments.targets or (*TARGETS, *KOTLIN):
        side = "kotlin" if name in KOTLIN else "python"
        if lacking[side]:
            print(f"{name}: skipped: {lacking[side]}")
        else:
            finds += _fuzz(name, bundles, arguments.seconds)
    return int(finds > 0)


def _missing_atheris() -> str:
    if importlib.util.find_spec("atheris"):
        return ""
    return "atheris is not installed: pip install 'pocketbert[fuzz]' (it has wheels for Python 3.11 to 3.13 on Linux)"


def _fuzz(name: str, bundles: list[Path], seconds: int) -> int:
    """Runs one target in a process of its own. Returns the number of finds: it stops at the first."""
    FOUND.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
        corpus = Path(scratch) / "corpus"
        corpus.mkdir()
        for i, data in enumerate(_seeds(name, bundles)):
            (corpus / f"{i:05}").write_bytes(data)
        command = (
            _jazzer(name, bundles) if name in KOTLIN else [sys.executable, HERE / "atheris_target.py", name, bundles[0]]
        )
        flags = [f"-max_total_time={seconds}", f"-timeout={SLOWEST}", f"-rss_limit_mb={MEMORY}", "-print_final_stats=1"]
        flags += [f"-artifact_prefix={FOUND}/{name}-", "-close_fd_mask=0"]
        log = FOUND / f"{name}.log"
        with log.open("w") as output:
            done = subprocess.run(
                [*map(str, command), *flags, str(corpus)], stdout=output, stderr=output, cwd=scratch, check=False
            )
    text = log.read_text(errors="replace")
    executions = max((int(a or b) for a, b in EXECUTIONS.findall(text)), default=0)
    verdict = (
        "nothing found"
        if done.returncode == 0
        else f"{'FOUND' if executions else 'DID NOT RUN'} (exit status {done.returncode}): see {log}"
    )
    print(f"{name}: {executions:,} executions in {seconds} s: {verdict}", flush=True)
    return int(done.returncode != 0)


def _seeds(name: str, bundles: list[Path]) -> list[bytes]:
    """What fuzzing begins with: the files of bundles and mutants of them."""
    source = {
        "kotlin_json": "manifest",
        "kotlin_manifest": "manifest",
        "kotlin_golden": "golden",
    }.get(name, name)
    if name == "kotlin_tensor_file":
        return [(bundle / "tokenizer.safetensors").read_bytes() for bundle in bundles]
    if name == "kotlin_encode":
        return [text.encode() for text in ("0 a lovely film", "1 不 [MASK] \u0301\u200d😀", "x" * 300)]
    if source not in TARGETS:
        return [random.Random(i).randbytes(1 + 5 * (i % 4)) for i in range(MUTANTS)]
    target, chance = TARGETS[source], random.Random(0)
    seeds = [seed for bundle in bundles for seed in target.seeds(bundle)]
    mutants = [target.mutate(chance.choice(seeds), chance) for _ in range(MUTANTS)]
    return [*seeds, *mutants, *([data + b"\0" for data in mutants] if name == "kotlin_manifest" else [])]


def _jazzer(name: str, bundles: list[Path]) -> list[str]:
    classes = android_build.build()
    done = android_build.maven(
        "--projects",
        "core",
        "--activate-profiles",
        "fuzz",
        "dependency:build-classpath",
        "-Dmdep.outputFile=target/fuzz-classpath",
    )
    if done.returncode:
        raise RuntimeError(f"Jazzer cannot be fetched:\n{done.stdout}{done.stderr}")
    libraries = (android_build.ANDROID / "core/target/fuzz-classpath").read_text().strip()
    tables = os.pathsep.join(str(bundle / "tokenizer.safetensors") for bundle in bundles)
    jvm = [
        "java",
        HEAP,
        "-XX:+EnableDynamicAgentLoading",
        f"-Dpocketbert.fuzz.tables={tables}",
        "-cp",
        f"{classes}:{libraries}",
    ]
    return [
        *jvm,
        "com.code_intelligence.jazzer.Jazzer",
        f"--target_class=io.pocketbert.core.{KOTLIN[name]}Fuzz",
        "--instrumentation_includes=io.pocketbert.core.**",
        "--instrumentation_excludes=io.pocketbert.core.FixturesKt:io.pocketbert.core.FuzzKt",
        f"--reproducer_path={FOUND}",
    ]


if __name__ == "__main__":
    sys.exit(main())
