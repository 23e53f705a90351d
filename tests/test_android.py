"""The Android modules compile without a warning, pass their own tests, and answer like the Python runtime.

Needs a JDK and Maven. The engines are the real ones: LiteRT's library and ExecuTorch's runtime out of the Python
wheels, inside a JVM, called by the adapters that an app ships.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import android_build
import android_natives
import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizer_cases import units
from tokenizer_texts import ODD, pool_texts, random_texts, read_tsv

from pocketbert.runtime import Classifier, QuestionAnswerer, TokenClassifier
from pocketbert.runtime.manifest import FOUR_BIT_SCHEME, read_manifest

DEMOS = ("distilbert", "albert")
ENGINES = {"tflite": "litert", "executorch": "executorch"}  # of Python -> module
SUITES = sorted(android_build.ANDROID.glob("*/src/test/kotlin/**/*Test.kt"))
ODD_TEXTS = 10_000
TASK_TEXTS = 500  # beside the odd ones
QUESTION = 8  # characters: a question leaves room for its text
# The same library computes both; a sum in another order, as another alignment brings, moves the last digits.
TOLERANCE = 1e-5
Texts = str | tuple[str, str]
Find = tuple[int, str, int, int]  # number of the text, label, start and end in UTF-16 units
Answers = tuple[NDArray[np.int32], NDArray[np.float32]]  # best labels (texts,), probabilities (texts, labels)


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    """What builds; without it these tests say so and are skipped."""
    lacking = android_build.missing()
    if lacking:
        pytest.skip(f"{lacking}: android_demo is neither compiled nor tested")


@pytest.fixture(scope="session")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the demo bundles, as `make demo` leaves them."""
    return export_demos(tmp_path_factory.mktemp("demo-bundles"))


@pytest.fixture(scope="session")
def four_bit_demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with weights of 4 bits."""
    return export_demos(tmp_path_factory.mktemp("four-bit-demos"), "--scheme", FOUR_BIT_SCHEME)


def export_demos(folder: Path, *options: str) -> Path:
    for name in DEMOS:
        checkpoint = android_build.REPOSITORY / "export/demo" / name
        command = [Path(sys.executable).with_name("pocketbert"), "export", checkpoint, "--out", folder / name]
        subprocess.run([*command, "--formats", ",".join(ENGINES), *options], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def task_bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of small bundles of the other tasks and of pairs, with random weights."""
    from test_tasks import CASES, write_task

    from pocketbert.export.bundle import ExportOptions, export_bundle

    folder = tmp_path_factory.mktemp("task-bundles")
    for name, (family, task, pairs) in CASES.items():
        checkpoint = write_task(folder / f"{name}-checkpoint", family, task)
        export_bundle(str(checkpoint), folder / name, ExportOptions(formats=tuple(ENGINES), max_length=24, pairs=pairs))
    return folder


@pytest.fixture(scope="session")
def lacking() -> dict[str, str]:
    """Module -> why its engine cannot run here; the others have their native libraries."""
    return android_natives.make()


@dataclass(frozen=True)
class Build:
    """What one run of Maven left."""

    succeeded: bool
    output: str

    def cases(self, suite: Path) -> list[ElementTree.Element]:
        """The test cases of a suite, as surefire reports them."""
        module = next(parent for parent in suite.parents if parent.parent == android_build.ANDROID)
        reports = list(module.glob(f"target/surefire-reports/TEST-*.{suite.stem}.xml"))
        assert len(reports) == 1, f"{suite.name} was not run:\n{self.output}"
        return ElementTree.parse(reports[0]).findall("testcase")


@pytest.fixture(scope="session")
def build(demos: Path, lacking: dict[str, str]) -> Build:
    """One build of every module with its tests."""
    for report in android_build.ANDROID.glob("*/target/surefire-reports/*.xml"):
        report.unlink()
    done = android_build.test(f"-Dbundles={demos}")
    return Build(done.returncode == 0, done.stdout + done.stderr)


def test_every_module_compiles_without_a_warning(build: Build) -> None:
    assert build.succeeded, build.output


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.stem)
def test_a_suite_of_the_modules_passes(build: Build, lacking: dict[str, str], suite: Path) -> None:
    if android_build.ANDROID / "app" in suite.parents and (lacking_app := android_build.missing_for_app()):
        pytest.skip(f"{lacking_app}: the app is neither compiled nor tested")
    cases = build.cases(suite)
    print(f"{len(cases)} cases")
    wrong = [(case, child) for case in cases for child in case if child.tag in ("failure", "error")]
    failures = [f"{case.get('name')}: {child.text}" for case, child in wrong]
    assert cases and not failures, "\n".join(failures)
    skipped = [child for case in cases for child in case if child.tag == "skipped"]
    if skipped and lacking:
        pytest.skip(f"{len(skipped)} of {len(cases)} cases: {'; '.join(lacking.values())}")
    assert not skipped, [child.get("message") for child in skipped]


def odd_texts() -> list[str]:
    short, long = random_texts(ODD_TEXTS // 2, seed=13), random_texts(ODD_TEXTS // 10, seed=14, longest=200)
    return list(islice(chain(ODD, short, long, pool_texts()), ODD_TEXTS))


def ask_kotlin(module: str, bundle: Path, texts: Sequence[Texts], scratch: Path) -> bytes:
    """What the module's own program answers."""
    asked = chain.from_iterable((text,) if isinstance(text, str) else text for text in texts)
    done = android_build.java(f"{module}.AnswerKt", bundle, scratch, cases=b"".join(map(units, asked)))
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def in_kotlin(module: str, bundle: Path, texts: Sequence[Texts], scratch: Path) -> Answers:
    rows = np.frombuffer(ask_kotlin(module, bundle, texts, scratch), ">i4").reshape(len(texts), -1)
    return rows[:, 0].astype(np.int32), rows[:, 1:].copy().view(">f4").astype(np.float32)


def in_python(engine: str, bundle: Path, texts: Sequence[Texts]) -> Answers:
    with Classifier.open(bundle, engine) as classifier:
        labels = list(classifier.manifest.labels)
        found = classifier.classify_batch(texts)
    best = [labels.index(predictions[0].label) for predictions in found]
    scores = [[next(p.score for p in predictions if p.label == label) for label in labels] for predictions in found]
    return np.array(best, np.int32), np.array(scores, np.float32)


def compare(engine: str, bundle: Path, texts: Sequence[Texts], lacking: dict[str, str], scratch: Path) -> None:
    module = ENGINES[engine]
    if module in lacking:
        pytest.skip(lacking[module])
    expected_labels, expected = in_python(engine, bundle, texts)
    found_labels, found = in_kotlin(module, bundle, texts, scratch)
    difference = np.abs(found - expected).max()
    print(f"{len(texts)} texts, largest difference {difference:.2g}")
    assert len(set(expected_labels)) > 1
    assert np.array_equal(found_labels, expected_labels)
    assert difference <= TOLERANCE


def finds_in_kotlin(module: str, bundle: Path, texts: Sequence[Texts], scratch: Path) -> dict[Find, float]:
    rows = [line.split("\t") for line in ask_kotlin(module, bundle, texts, scratch).decode().splitlines()]
    return {(int(i), label, int(start), int(end)): float(score) for i, label, start, end, score in rows}


def finds_in_python(engine: str, bundle: Path, texts: Sequence[Texts]) -> dict[Find, float]:
    """Entities of texts, or answers to pairs of a question and a text."""
    with open_bundle(bundle, engine) as model:
        found = [model(text) if isinstance(text, str) else filter(None, [model(*text)]) for text in texts]
    return {
        (i, getattr(each, "label", ""), units_before(text, each.start), units_before(text, each.end)): each.score
        for i, text in enumerate(text if isinstance(text, str) else text[1] for text in texts)
        for each in found[i]
    }


def open_bundle(bundle: Path, engine: str) -> Any:
    kinds: dict[str, Any] = {kind.task: kind for kind in (TokenClassifier, QuestionAnswerer)}
    return kinds[read_manifest(bundle).task].open(bundle, engine)


def units_before(text: str, place: int) -> int:
    """UTF-16 units before a code point."""
    return len(text[:place].encode("utf-16-be", "surrogatepass")) // 2


def compare_finds(engine: str, bundle: Path, texts: Sequence[Texts], lacking: dict[str, str], scratch: Path) -> int:
    """How many entities or answers there are: the same ones."""
    module = ENGINES[engine]
    if module in lacking:
        pytest.skip(lacking[module])
    expected = finds_in_python(engine, bundle, texts)
    found = finds_in_kotlin(module, bundle, texts, scratch)
    assert found.keys() == expected.keys()
    difference = max(abs(found[find] - expected[find]) for find in expected)
    print(f"{len(texts)} texts, {len(found)} found, largest difference {difference:.2g}")
    assert difference <= TOLERANCE
    return len(found)


def odd_pairs() -> list[Texts]:
    """Of a short text and another one."""
    texts = [*ODD, *random_texts(TASK_TEXTS, seed=15)]
    return [(first[:QUESTION], second) for first, second in zip(reversed(texts), texts, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("task", ["entities", "answers"])
def test_kotlin_finds_what_python_finds_with_the_same_engine(
    task_bundles: Path, lacking: dict[str, str], tmp_path: Path, task: str, engine: str
) -> None:
    """Of artifacts with a row for each id, and with two outputs that a signature orders as it likes."""
    texts = odd_pairs() if task == "answers" else odd_texts()[: len(odd_pairs())]
    assert compare_finds(engine, task_bundles / task, texts, lacking, tmp_path) > len(texts) / 2


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_kotlin_labels_pairs_as_python_does(
    task_bundles: Path, lacking: dict[str, str], tmp_path: Path, engine: str
) -> None:
    compare(engine, task_bundles / "pairs", odd_pairs(), lacking, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("demo", DEMOS)
def test_kotlin_labels_ten_thousand_odd_texts_as_python_does(
    demos: Path, lacking: dict[str, str], tmp_path: Path, demo: str, engine: str
) -> None:
    texts = odd_texts()
    assert len(texts) == ODD_TEXTS
    compare(engine, demos / demo, texts, lacking, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("demo", DEMOS)
def test_kotlin_labels_by_four_bits_as_python_does(
    four_bit_demos: Path, lacking: dict[str, str], tmp_path: Path, demo: str, engine: str
) -> None:
    """Of golden cases, which each side checks by itself, and of odd texts."""
    compare(engine, four_bit_demos / demo, odd_texts()[:TASK_TEXTS], lacking, tmp_path)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("demo", DEMOS)
def test_kotlin_labels_sst2_dev_as_python_does(
    demos: Path, shared: Path, lacking: dict[str, str], tmp_path: Path, demo: str, engine: str
) -> None:
    texts = [row[0] for row in read_tsv(shared / "data/sst2/dev.tsv")]
    assert len(texts) == 872
    compare(engine, demos / demo, texts, lacking, tmp_path)


def install(bundle: Path, store: Path, limit: int | None = None) -> list[str]:
    """Installs a bundle, with a limit to the bytes of a file if it is given. What the program says."""
    command = android_build.command_line("core.InstallKt", bundle, store, "tflite", 0)
    if limit is not None:
        command = ["prlimit", f"--fsize={limit}", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_kill_while_a_bundle_is_copied_leaves_the_one_before(demos: Path, tmp_path: Path) -> None:
    there = install(demos / "distilbert", tmp_path)[-1].removeprefix("after: ")
    command = android_build.command_line("core.InstallKt", demos / "albert", tmp_path, "tflite", 100)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as copying:
        assert copying.stdout
        assert any(line == "copying model.tflite\n" for line in copying.stdout)
        time.sleep(0.5)  # some blocks of it
        copying.kill()
    assert any(file.suffix == ".part" for file in tmp_path.rglob("*"))
    assert install(demos / "distilbert", tmp_path)[0] == f"before: {there}"
    first, *_, last = install(demos / "albert", tmp_path)
    assert first == f"before: {there}"
    assert last.startswith("after: ") and there not in last
    assert not any(file.suffix == ".part" for file in tmp_path.rglob("*"))


def test_a_disk_that_takes_no_more_leaves_the_bundle_before_and_is_told_in_words(demos: Path, tmp_path: Path) -> None:
    there = install(demos / "distilbert", tmp_path)[-1].removeprefix("after: ")
    limit = (demos / "albert/model.tflite").stat().st_size - 1
    *_, refusal, last = install(demos / "albert", tmp_path, limit)
    assert refusal.startswith("refused: model.tflite cannot be kept on this device, free some space and try again")
    assert last == f"after: {there}"
