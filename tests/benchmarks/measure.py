"""Measures what BENCHMARKS.md says of time and memory: export, latency, whether the order of engines matters, int8
beside 4 bits, start and memory, ExecuTorch's overhead, Arm kernels.

    python tests/benchmarks/measure.py --work DIR [--shared ../shared]      a quarter of an hour, on a quiet machine

Takes nothing but time: checkpoints of the base shapes are made here, with random weights, which cost the same time as
trained ones. Writes a JSON file for each measurement in results/ beside this file. Leaves out: tables (tables.py).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from pocketbert.export.onnxruntime_baseline import export_onnxruntime
from pocketbert.runtime import engines
from pocketbert.runtime.bench import measure as bench
from pocketbert.runtime.bench.measure import Subject, make_texts
from pocketbert.runtime.manifest import FOUR_BIT_SCHEME, read_manifest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results"
COMMAND = [sys.executable, "-m", "pocketbert.runtime.cli"]
FAMILIES = ("distilbert", "albert")
PARTS = ("export", "bench", "order", "schemes", "real", "overhead", "arm")
REAL = "distilbert-l6-h384-sst2"  # of the shared models: a trained one, for real texts
SOAK = 20_000
LENGTHS, ROUNDS, THREADS = (16, 32, 64, 128), 6, 2
ARM_LENGTHS = ("16", "32")
FILES = {"tflite": "model.tflite", "executorch": "model.pte"}
LOOK_EVERY = 0.2  # seconds between two looks at an export's memory
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "arm")]


def main(
    work: Annotated[Path, typer.Option(help="Folder for checkpoints and bundles.")],
    shared: Annotated[Path, typer.Option(help="Real models and texts; left out if absent.")] = ROOT.parent / "shared",
    only: Annotated[str, typer.Option(help=f"{', '.join(PARTS)}; all by default.")] = "",
    families: Annotated[str, typer.Option(help="Of which base shapes.")] = ",".join(FAMILIES),
) -> None:
    """Measure, and write results/*.json."""
    chosen = only.split(",") if only else PARTS
    for family in families.split(","):
        checkpoint, bundle = write_checkpoint(work / family, family, shared), work / f"{family}-bundle"
        four_bits = work / f"{family}-four-bits-bundle"
        if "export" in chosen or not bundle.exists():
            keep(f"export-{family}", export(checkpoint, bundle))
        if "export" in chosen or not four_bits.exists():
            keep(f"export-{family}-four-bits", export(checkpoint, four_bits, "--scheme", FOUR_BIT_SCHEME))
        if "bench" in chosen:
            run(
                "bench",
                bundle,
                "--against",
                "onnxruntime",
                "--checkpoint",
                checkpoint,
                "--json",
                result(f"bench-{family}"),
            )
        if "order" in chosen:
            keep(f"order-{family}", measure_orders(checkpoint, bundle, work))
        if "schemes" in chosen:
            keep(f"schemes-{family}", measure_schemes(checkpoint, bundle, four_bits, work))
        if "overhead" in chosen:
            keep(f"overhead-{family}", json.loads(script("overhead.py", checkpoint).splitlines()[-1]))
        if "arm" in chosen:
            time_arm(family, checkpoint, bundle, four_bits, work)
    if "real" in chosen and shared.is_dir():
        measure_real(shared, work)


def write_checkpoint(folder: Path, family: str, shared: Path) -> Path:
    """The base shape of `family`; its tokenizer is a real one where there is one."""
    from test_base_shapes import CONFIGS, write_base_checkpoint

    if not folder.exists():
        folder.mkdir(parents=True)
        write_base_checkpoint(folder, CONFIGS[family])
        real = shared / "models" / f"{family}-l6-h384-sst2" / "tokenizer.json"
        if real.exists():
            (folder / "vocab.txt").unlink()
            shutil.copy(real, folder)
    return folder


def export(checkpoint: Path, bundle: Path, *options: str) -> dict[str, Any]:
    """What `pocketbert export --json` says, and the most memory (PSS) that it and its workers had at once."""
    command = [*COMMAND, "export", str(checkpoint), "--out", str(bundle), *options, "--force", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    peak = [0]

    def watch() -> None:
        while process.poll() is None:
            peak[0] = max(peak[0], tree_bytes(process.pid))
            time.sleep(LOOK_EVERY)

    watcher = threading.Thread(target=watch)
    watcher.start()
    said = json.loads(process.communicate()[0])
    watcher.join()
    return {**said, "bundle": bundle.name, "peak_bytes": peak[0]}


def tree_bytes(pid: int) -> int:
    """Memory of a process and its children; pages that they share count once."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            total += process.memory_full_info().pss
    except psutil.Error:  # one of them has just ended
        return total
    return total


def measure_orders(checkpoint: Path, bundle: Path, work: Path) -> dict[str, Any]:
    """The same engines in turns, in turns the other way round, and each alone: before whom one runs must not matter."""
    subjects = [*list_subjects(bundle), onnxruntime(checkpoint, bundle, work)]
    return {
        "forward": [measure(subjects)],
        "backward": [measure(subjects[::-1])],
        "alone": [measure([subject]) for subject in subjects],
    }


def measure_schemes(checkpoint: Path, bundle: Path, four_bits: Path, work: Path) -> dict[str, Any]:
    """int8, 4 bits and onnxruntime's int8 in one run, with the size of each file."""
    subjects = [*list_subjects(bundle), *list_subjects(four_bits), onnxruntime(checkpoint, bundle, work)]
    files = {
        f"{folder.name}/{artifact.path}": artifact.bytes
        for folder in (bundle, four_bits)
        for artifact in read_manifest(folder).artifacts
    }
    return {**measure(subjects), "bytes": {**files, "onnxruntime": Path(subjects[-1].model).stat().st_size}}


def list_subjects(bundle: Path) -> list[Subject]:
    """Every engine that reads this bundle."""
    found = engines.timed([artifact.format for artifact in read_manifest(bundle).artifacts])
    return [Subject(name, THREADS, str(bundle)) for name in found]


def onnxruntime(checkpoint: Path, bundle: Path, work: Path) -> Subject:
    return Subject("onnxruntime", THREADS, str(bundle), str(baseline(checkpoint, work)))


def measure(subjects: Sequence[Subject]) -> dict[str, Any]:
    """Every sample of a run, in the order given."""
    print("measuring", " > ".join(f"{Path(subject.bundle).name} {subject.name}" for subject in subjects), flush=True)
    texts = {bundle: make_texts(Path(bundle), read_manifest(Path(bundle)), LENGTHS) for bundle in _bundles(subjects)}
    return bench.measure(subjects, texts, ROUNDS, starts=0).as_json()


def _bundles(subjects: Sequence[Subject]) -> list[str]:
    return list(dict.fromkeys(subject.bundle for subject in subjects))


def measure_real(shared: Path, work: Path) -> None:
    """Real weights and texts: text to label as an app sees it, and memory over many texts."""
    checkpoint, bundle = shared / "models" / REAL, work / "real-bundle"
    run("export", checkpoint, "--out", bundle, "--force", "--formats", "executorch,tflite")
    data = ["--data", shared / "data" / "sst2" / "dev.tsv"]
    run("bench", bundle, *data, "--threads", 2, "--soak", SOAK, "--json", result("bench-real"))


def time_arm(family: str, checkpoint: Path, bundle: Path, four_bits: Path, work: Path) -> None:
    """CPU seconds by engine and length on emulated Arm kernels; nothing is recorded where they cannot be had."""
    import check

    if problem := check.build():
        print(f"not measured: arm-{family}: {problem}")
        return
    models = {("onnxruntime", "onnxruntime"): baseline(checkpoint, work)}
    for engine, file in FILES.items():
        models[engine, engine] = bundle / file
        models[engine, f"{engine}, 4 bits"] = four_bits / file
    found = {
        name: check.run("latency.py", engine, str(model), *ARM_LENGTHS) for (engine, name), model in models.items()
    }
    if failed := [f"{name}: {one['error']}" for name, one in found.items() if "error" in one]:
        print(f"not measured: arm-{family}: {failed[0]}")
    else:
        keep(f"arm-{family}", found)


def baseline(checkpoint: Path, work: Path) -> Path:
    """The checkpoint as onnxruntime's int8."""
    folder = work / f"{checkpoint.name}-onnx"
    folder.mkdir(exist_ok=True)
    return export_onnxruntime(str(checkpoint), folder)


def run(*arguments: object) -> None:
    print("pocketbert", *arguments, flush=True)
    subprocess.run([*COMMAND, *map(str, arguments)], check=True)


def script(name: str, *arguments: object) -> str:
    done = subprocess.run([sys.executable, HERE / name, *map(str, arguments)], stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def result(name: str) -> Path:
    RESULTS.mkdir(exist_ok=True)
    return RESULTS / f"{name}.json"


def keep(name: str, content: Any) -> None:
    result(name).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
