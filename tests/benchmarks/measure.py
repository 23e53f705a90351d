"""Measures everything that BENCHMARKS.md says: export, latency, whether the order of engines matters, start and memory,
ExecuTorch's overhead, Arm kernels.

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
from pocketbert.runtime.manifest import read_manifest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results"
COMMAND = [sys.executable, "-m", "pocketbert.runtime.cli"]
FAMILIES = ("distilbert", "albert")
PARTS = ("export", "bench", "order", "real", "overhead", "arm")
REAL = "distilbert-l6-h384-sst2"  # of the shared models: a trained one, for real texts
SOAK = 20_000
ORDER_LENGTHS, ORDER_ROUNDS, ORDER_THREADS = (16, 32, 64, 128), 6, 2
ARM_LENGTHS = ("16", "32")
ARM_ENGINES = ("onnxruntime", "tflite", "executorch")
LOOK_EVERY = 0.2  # seconds between two looks at an export's memory
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "arm")]


def main(
    work: Annotated[Path, typer.Option(help="Folder for checkpoints and bundles.")],
    shared: Annotated[Path, typer.Option(help="Real models and texts; left out if absent.")] = ROOT.parent / "shared",
    only: Annotated[str, typer.Option(help=f"{', '.join(PARTS)}; all by default.")] = "",
) -> None:
    """Measure, and write results/*.json."""
    chosen = only.split(",") if only else PARTS
    for family in FAMILIES:
        checkpoint, bundle = write_checkpoint(work / family, family, shared), work / f"{family}-bundle"
        if "export" in chosen or not bundle.exists():
            keep(f"export-{family}", export(checkpoint, bundle))
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
        if "overhead" in chosen:
            keep(f"overhead-{family}", json.loads(script("overhead.py", checkpoint).splitlines()[-1]))
        if "arm" in chosen:
            time_arm(family, checkpoint, bundle, work)
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


def export(checkpoint: Path, bundle: Path) -> dict[str, Any]:
    """What `pocketbert export --json` says, and the most memory (PSS) that it and its workers had at once."""
    command = [*COMMAND, "export", str(checkpoint), "--out", str(bundle), "--force", "--json"]
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
    manifest = read_manifest(bundle)
    models = dict.fromkeys(engines.timed([artifact.format for artifact in manifest.artifacts]), "")
    models["onnxruntime"] = str(baseline(checkpoint, work))
    subjects = [Subject(name, ORDER_THREADS, str(bundle), model) for name, model in models.items()]
    texts = {str(bundle): make_texts(bundle, manifest, ORDER_LENGTHS)}

    def measure_in(order: Sequence[Subject]) -> dict[str, Any]:
        print("measuring", " > ".join(subject.name for subject in order), flush=True)
        return bench.measure(order, texts, ORDER_ROUNDS, starts=0).as_json()

    return {
        "forward": [measure_in(subjects)],
        "backward": [measure_in(subjects[::-1])],
        "alone": [measure_in([subject]) for subject in subjects],
    }


def measure_real(shared: Path, work: Path) -> None:
    """Real weights and texts: text to label as an app sees it, and memory over many texts."""
    checkpoint, bundle = shared / "models" / REAL, work / "real-bundle"
    run("export", checkpoint, "--out", bundle, "--force", "--formats", "executorch,tflite")
    data = ["--data", shared / "data" / "sst2" / "dev.tsv"]
    run("bench", bundle, *data, "--threads", 2, "--soak", SOAK, "--json", result("bench-real"))


def time_arm(family: str, checkpoint: Path, bundle: Path, work: Path) -> None:
    """CPU seconds by engine and length on emulated Arm kernels; nothing is recorded where they cannot be had."""
    import check

    if problem := check.build():
        print(f"not measured: arm-{family}: {problem}")
        return
    models = {
        "onnxruntime": baseline(checkpoint, work),
        "tflite": bundle / "model.tflite",
        "executorch": bundle / "model.pte",
    }
    found = {engine: check.run("latency.py", engine, str(models[engine]), *ARM_LENGTHS) for engine in ARM_ENGINES}
    if failed := [f"{engine}: {one['error']}" for engine, one in found.items() if "error" in one]:
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
