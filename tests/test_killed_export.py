"""An export that is killed, interrupted or raced leaves nothing that looks done, no process, and no litter for long.

More kills than a test should take: python tests/test_killed_export.py 50
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import write_checkpoint

from pocketbert.export import atomic_directory, bundle, lowering, worker_process
from pocketbert.export.atomic_directory import publish, remove_dead, stage
from pocketbert.export.bundle import ExportError, ExportOptions, export_bundle
from pocketbert.export.checkpoint import Checkpoint, load_checkpoint
from pocketbert.runtime.manifest import read_manifest, verify_files

KILLS = 10
SECONDS_TO_END = 30  # for workers whose parent is gone; on an idle machine it takes milliseconds
PATIENCE = 600  # seconds for an export, on a machine with more to do
NOT_OURS = "torchinductor_*"  # torch's cache, which importing it makes
TFLITE = ExportOptions(formats=("tflite",), max_length=16)
TWO_WORKERS = ("--formats", "executorch,tflite", "--max-length", "16")


@contextmanager
def exporting(checkpoint: Path, out: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a session of its own, whose temporary files go beside `out`."""
    temporary = out.parent / "temporary"
    temporary.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pocketbert", "export", str(checkpoint), "--out", str(out), *arguments]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            for left in session(process.pid):  # a test that fails leaves none either
                left.kill()


def session(leader: int) -> list[psutil.Process]:
    """The living processes of a session."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def wait_until_gone(leader: int) -> list[str]:
    """What of a session is still there when its time is up: the command lines."""
    end = time.monotonic() + SECONDS_TO_END
    while session(leader) and time.monotonic() < end:
        time.sleep(0.02)
    return [" ".join(process.cmdline()) for process in session(leader)]


def hidden_folders(parent: Path) -> list[Path]:
    return list(parent.glob(".*.unfinished-*"))


def wait_for_hidden_folder(process: subprocess.Popen[str], parent: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not hidden_folders(parent) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)


def litter(parent: Path, *expected: str) -> list[str]:
    """What is in `parent` beside what belongs there."""
    temporary = parent / "temporary"
    ours = {*temporary.iterdir()} - {*temporary.glob(NOT_OURS)} if temporary.exists() else set()
    others = [path.name for path in parent.iterdir() if path.name not in ("temporary", *expected)]
    return [*others, *sorted(path.name for path in ours)]


def assert_whole_or_absent(out: Path) -> None:
    if out.exists():
        verify_files(out, read_manifest(out).files)


def kill_exports(checkpoint: Path, parent: Path, kills: int, seed: int) -> dict[str, int]:
    """Kills as many exports to one place and looks at what each leaves. Returns how far they had come."""
    dice, out, force = random.Random(seed), parent / "out", ("--force",)
    seconds = 2.0  # that an export takes from its hidden folder on; corrected by those that end before they are killed
    outcomes = {"before its folder": 0, "amid its work": 0, "when it was done": 0}
    for _ in range(kills):
        with exporting(checkpoint, out, *TWO_WORKERS, *force) as process:
            early = dice.random() < 0.2
            if not early:
                wait_for_hidden_folder(process, parent)
            started = time.monotonic()
            try:
                process.wait(dice.uniform(0, seconds))
                seconds, outcome = max(1.0, time.monotonic() - started), "when it was done"
            except subprocess.TimeoutExpired:
                outcome = "amid its work" if hidden_folders(parent) else "before its folder"
                seconds = seconds if early else seconds * 1.3  # the next one may live longer
            process.kill()
            assert wait_until_gone(process.pid) == []
            outcomes[outcome] += 1
        assert_whole_or_absent(out)
        assert len(hidden_folders(parent)) <= 1  # each run removes what the one before it left
    return outcomes


@pytest.mark.slow
def test_exports_killed_at_any_instant_leave_no_process_and_no_half_bundle_and_the_next_one_cleans_up(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    outcomes = kill_exports(checkpoints["bert"], tmp_path, KILLS, seed=12)
    assert outcomes["amid its work"] > 0
    export_bundle(str(checkpoints["bert"]), tmp_path / "out", ExportOptions(("tflite",), max_length=16, force=True))
    assert_whole_or_absent(tmp_path / "out")
    assert litter(tmp_path, "out") == []


@pytest.mark.parametrize("seconds", [0.0, 0.5, 3.0])
def test_ctrl_c_ends_an_export_at_once_without_a_word_and_without_litter(
    checkpoints: dict[str, Path], tmp_path: Path, seconds: float
) -> None:
    """The terminal sends it to the workers as well."""
    with exporting(checkpoints["bert"], tmp_path / "out", *TWO_WORKERS) as process:
        wait_for_hidden_folder(process, tmp_path)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=PATIENCE)[1]
        assert wait_until_gone(process.pid) == []
    done = (tmp_path / "out").exists()  # a fast machine may have been faster
    assert process.returncode == (0 if done else 130), said
    assert all(line.startswith("✓") for line in said.splitlines()), said
    assert litter(tmp_path, *["out"] * done) == []


# One fact at a time


def test_an_interrupt_waits_until_a_process_is_told_what_to_do(tmp_path: Path) -> None:
    """Whichever thread the system hands the signal to: the mask holds for one."""
    done = []
    listener = threading.Thread(target=time.sleep, args=(PATIENCE,), daemon=True)  # a thread that takes the signal
    listener.start()
    with pytest.raises(KeyboardInterrupt), worker_process.uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        done.append("told")
    assert done == ["told"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_while_workers_start_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {child.pid for child in psutil.Process().children()}
    original = worker_process.uninterrupted

    @contextmanager
    def interrupted() -> Iterator[None]:
        with original():
            yield
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(worker_process, "uninterrupted", interrupted)
    with pytest.raises(KeyboardInterrupt), lowering.Workers(("tflite", "executorch"), tmp_path):
        pytest.fail("the block is not reached")
    left = [child for child in psutil.Process().children() if child.pid not in before]
    assert [child for child in left if "resource_tracker" not in " ".join(child.cmdline())] == []


def linger(hidden: Path, seconds: float) -> None:
    """In a worker: writes a file that shows it began, and works on."""
    (hidden / "began").write_text(tempfile.gettempdir())
    time.sleep(seconds)


def hire(hidden: Path) -> None:
    """In a process of its own: has one worker, and waits for it."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=worker_process.begin, initargs=(hidden,)) as pool:
        pool.submit(linger, hidden, PATIENCE).result()


@pytest.mark.parametrize("by", ["the kernel", "the pipe"])
def test_a_worker_ends_with_its_parent(tmp_path: Path, by: str) -> None:
    """By either of two ways, so that it ends where there is no prctl, and where a converter holds Python's lock."""
    way = "_end_by_pipe" if by == "the kernel" else "_end_by_kernel"
    (tmp_path / "script.py").write_text(
        "from pathlib import Path\n"
        "from pocketbert.export import worker_process\n"
        f"worker_process.{way} = lambda: None\n"
        "import test_killed_export\n"
        f"if __name__ == '__main__': test_killed_export.hire(Path({str(tmp_path)!r}))\n"
    )
    if by == "the kernel" and sys.platform != "linux":
        pytest.skip("needs Linux, whose kernel can be asked to do it")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen([sys.executable, tmp_path / "script.py"], env=environment, start_new_session=True) as parent:
        try:
            end = time.monotonic() + PATIENCE
            while not (tmp_path / "began").exists() and parent.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
            parent.kill()
            assert wait_until_gone(parent.pid) == []
        finally:
            for left in session(parent.pid):
                left.kill()


def test_the_next_run_removes_the_folder_of_a_dead_one_and_keeps_that_of_a_living_one(tmp_path: Path) -> None:
    dead = tmp_path / ".other.unfinished-abcd1234"
    (dead / "content").mkdir(parents=True)
    with stage(tmp_path / "out") as living:
        assert hidden_folders(tmp_path) == [living.parent]
        with stage(tmp_path / "out") as another:
            assert sorted(hidden_folders(tmp_path)) == sorted([living.parent, another.parent])
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_still_writes_keeps_its_folder_alive(tmp_path: Path) -> None:
    folder = tmp_path / ".out.unfinished-abcd1234"
    folder.mkdir()
    lock = atomic_directory.hold(folder)
    assert lock is not None
    remove_dead(tmp_path)
    assert folder.exists()
    os.close(lock)
    remove_dead(tmp_path)
    assert not folder.exists()


def test_a_folder_of_the_users_is_never_taken_for_a_dead_run(tmp_path: Path) -> None:
    for name in (".out-abcd1234", ".out.unfinished-mine", "out.unfinished-abcd1234", ".git"):
        (tmp_path / name).mkdir()
    (tmp_path / ".out.unfinished-abcd1234").symlink_to(tmp_path / ".git")
    (tmp_path / ".out.unfinished-abcd5678").write_text("a file")
    before = sorted(tmp_path.iterdir())
    remove_dead(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_was_removed_before_it_was_held_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, tries = atomic_directory.hold, []

    def removed_the_first_time(hidden: Path) -> int | None:
        tries.append(hidden)
        if len(tries) == 1:
            remove_dead(tmp_path)
        return hold(hidden)

    monkeypatch.setattr(atomic_directory, "hold", removed_the_first_time)
    with stage(tmp_path / "out") as folder:
        assert folder.exists() and len(tries) == 2


def test_of_two_exports_to_one_place_the_second_is_refused(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ends between the second's last look and its rename."""
    out = tmp_path / "out"

    def let_the_other_win(folder: Path, target: Path, replace: bool) -> None:
        target.mkdir()
        (target / "theirs").touch()
        publish(folder, target, replace)

    monkeypatch.setattr(bundle, "publish", let_the_other_win)
    with pytest.raises(ExportError, match="it is there by now: another run wrote it"):
        export_bundle(str(checkpoints["bert"]), out, TFLITE)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "theirs"]


def test_what_appeared_during_an_export_is_not_replaced_even_by_force_unless_it_is_a_bundle(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def load_and_write(source: str, *options: Any) -> Checkpoint:
        out.mkdir()
        (out / "thesis.tex").touch()
        return load_checkpoint(source, *options)

    monkeypatch.setattr(bundle, "load_checkpoint", load_and_write)
    with pytest.raises(ExportError, match="is not a bundle and is not replaced"):
        export_bundle(str(checkpoints["bert"]), out, ExportOptions(("tflite",), max_length=16, force=True))
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "thesis.tex"]


@pytest.mark.parametrize("there", ["a file", "a folder", "a link"])
def test_publishing_never_replaces_unasked(tmp_path: Path, there: str) -> None:
    out = tmp_path / "out"
    with stage(out) as folder:
        if there == "a folder":
            out.mkdir()
            (out / "mine").touch()
        elif there == "a file":
            out.write_text("mine")
        else:
            out.symlink_to(tmp_path)
        with pytest.raises(FileExistsError):
            publish(folder, out)
    assert out.is_symlink() or out.is_file() or (out / "mine").exists()


@pytest.mark.parametrize("swaps", [True, False], ids=["in one step", "in two"])
def test_replacing_leaves_the_new_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool
) -> None:
    """In one step where the system can: the old folder is never away, whenever a kill comes."""
    out, moved, rename = tmp_path / "out", [], os.rename

    def watch(old: Path, new: Path) -> None:
        moved.append(old)
        rename(old, new)

    monkeypatch.setattr(atomic_directory.os, "rename", watch)
    if not swaps:
        monkeypatch.setattr(atomic_directory, "_swap", lambda one, other: False)
    for version in ("old", "new"):
        with stage(out) as folder:
            (folder / "version").write_text(version)
            publish(folder, out, replace=True)
    assert (out / "version").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    if sys.platform == "linux":
        assert (out in moved) is not swaps


def test_an_exclusive_lock_is_what_tells_the_dead(tmp_path: Path) -> None:
    """flock on a folder works here; where a file system has none, nothing is ever removed."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        place, kills = Path(folder) / "place", int(sys.argv[1])
        place.mkdir()
        model = write_checkpoint(Path(folder) / "checkpoint", "bert")
        print(f"{kills} exports killed: {kill_exports(model, place, kills, seed=kills)}")
        export_bundle(str(model), place / "out", ExportOptions(("tflite",), max_length=16, force=True))
        print(f"after one more export there is {litter(place, 'out') or 'nothing'} left but its bundle")
