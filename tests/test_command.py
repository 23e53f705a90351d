"""The `pocketbert` command in odd surroundings: no stdin, a full disk, an ASCII terminal, an early Ctrl-C."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from pocketbert.runtime import Classifier, PocketbertError
from pocketbert.runtime.cli.output import make_table, print_in_parts
from pocketbert.runtime.html.page import write_whole
from pocketbert.runtime.manifest import FORMATS, describe_file, read_manifest, write_manifest

COMMAND = [sys.executable, "-m", "pocketbert"]
FULL = Path("/dev/full")  # answers every write with "no space left"
needs_full = pytest.mark.skipif(not FULL.is_char_device(), reason="needs /dev/full, which Linux has")


def shell(line: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`line` in a shell, in which $@ is the command with its arguments."""
    command = ["sh", "-c", line, "sh", *COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def test_a_closed_stdin_is_said(bundles: dict[str, Path]) -> None:
    done = shell('"$@" <&-', "classify", bundles["albert"])
    assert (done.returncode, done.stderr) == (2, "pocketbert: stdin is closed: pass texts as arguments\n")


def test_a_closed_stdout_is_said(bundles: dict[str, Path]) -> None:
    done = shell('"$@" >&-', "classify", bundles["albert"], "film")
    assert (done.returncode, done.stderr) == (2, "pocketbert: stdout is closed: leave it open, or send it to a file\n")


@needs_full
@pytest.mark.parametrize("arguments", [["classify", "film"], ["inspect"], ["inspect", "--json"]], ids=" ".join)
def test_a_full_stdout_is_said(bundles: dict[str, Path], arguments: list[str]) -> None:
    done = shell('"$@" >/dev/full', arguments[0], bundles["albert"], *arguments[1:])
    assert done.returncode == 2
    assert done.stderr == "pocketbert: cannot write the output: No space left on device\n"


def test_a_terminal_that_knows_ascii_only_gets_escapes(bundles: dict[str, Path]) -> None:
    done = shell(
        '"$@"', "classify", bundles["albert"], "caf\u00e9 \U0001f60d", PYTHONIOENCODING="ascii", PYTHONUTF8="0"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\tcaf\\xe9 \\U0001f60d\n")
    assert shell('"$@"', "inspect", bundles["albert"], PYTHONIOENCODING="ascii", PYTHONUTF8="0").returncode == 0


@pytest.mark.parametrize("seconds", [0.02, 0.05, 0.1, 0.2])
def test_an_early_interrupt_leaves_no_traceback(bundles: dict[str, Path], seconds: float) -> None:
    """Ctrl-C while the command's own imports run; Python is up already, whose start is not ours."""
    code = (
        f"import sys; sys.argv = ['pocketbert', 'inspect', {str(bundles['albert'])!r}]; print('up', flush=True)\n"
        "from pocketbert.__main__ import main; main()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "up\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert said == ""
    assert process.returncode in (130, -signal.SIGINT, 0)  # 0: it was quicker


def test_a_report_goes_into_a_device_or_pipe_and_does_not_replace_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True)
    write_whole(pipe, "a page")
    assert reader.communicate(timeout=30)[0] == "a page"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@needs_full
def test_a_report_into_a_full_device_fails_and_leaves_it_a_device(tmp_path: Path) -> None:
    link = tmp_path / "full"  # if it were replaced, only the link would be
    link.symlink_to(FULL)
    with pytest.raises(PocketbertError, match=r"cannot write .*full: No space left on device"):
        write_whole(link, "a page")
    assert link.is_symlink() and FULL.is_char_device()


def test_a_report_goes_through_a_link_and_does_not_replace_it(tmp_path: Path) -> None:
    """/dev/stdout is a link, and ends at a regular file in `pocketbert check ... --report /dev/stdout > page.html`."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("a longer page of before")
    link.symlink_to(file)
    write_whole(link, "a page")
    assert link.is_symlink() and file.read_text() == "a page"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


@pytest.mark.parametrize("engine", FORMATS)
def test_an_engine_that_answers_wrongly_is_one_line_and_its_library_says_no_more(
    bundles: dict[str, Path], tmp_path: Path, engine: str
) -> None:
    """LiteRT logs what it destroys, and only after Python has gone."""
    folder = shutil.copytree(bundles["albert"], tmp_path / "bundle")
    golden = json.loads((folder / "golden.json").read_text())
    for case in golden["cases"]:
        case["oracle"] = {name: [10 * (i + 1) for i in range(len(row))] for name, row in case["oracle"].items()}
    (folder / "golden.json").write_text(json.dumps(golden))
    write_manifest(replace(read_manifest(folder), golden=describe_file(folder, "golden.json")), folder)
    done = shell('"$@"', "classify", folder, "film", "--engine", engine)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert re.match(r"pocketbert: .* computes model\..* wrongly: probabilities are off by ", done.stderr)


def test_a_cache_without_room_is_done_without_and_said_once(bundles: dict[str, Path], tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    command = [*COMMAND, "classify", str(bundles["albert"]), "film", "bad app", "--engine", "tflite"]
    environment = {**os.environ, "POCKETBERT_CACHE": str(tmp_path)}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, preexec_fn=limit, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr.count("cannot hold packed weights (File too large)") == 1
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.xnnpack"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_unicode_encoding_of_stdin_is_read(bundles: dict[str, Path], encoding: str) -> None:
    lines = ["a lovely film", "caf\u00e9", "\u0445\u043e\u0440\u043e\u0448\u0438\u0439", "\U0001f60d"]
    done = piped(bundles, "\r\n".join(lines).encode(encoding))
    assert (done.returncode, done.stderr) == (0, b"")
    assert [line.split("\t")[1] for line in done.stdout.decode().splitlines()] == lines


@pytest.mark.parametrize("content", ["caf\u00e9\n".encode("latin-1"), "\u7535\u5f71\n".encode("gbk"), bytes(100)])
def test_another_encoding_of_stdin_is_refused(bundles: dict[str, Path], content: bytes) -> None:
    done = piped(bundles, content)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"stdin is in no Unicode encoding: convert it to UTF-8" in done.stderr


def test_a_broken_line_of_stdin_is_told(bundles: dict[str, Path]) -> None:
    done = piped(bundles, "fine\nd\u00e9j\u00e0 vu\n".encode() + b"caf\xe9\n")
    assert (done.returncode, done.stdout.decode().splitlines()[-1].split("\t")[1]) == (0, "caf\ufffd")
    assert done.stderr == b"pocketbert: 1 lines hold bytes that are no UTF-8, read as U+FFFD\n"


@pytest.mark.parametrize("from_file", [True, False])
def test_a_bar_is_drawn_where_answers_go_elsewhere(bundles: dict[str, Path], tmp_path: Path, from_file: bool) -> None:
    """stderr is a terminal and stdout a file: that must hold every answer and nothing else."""
    lines, answers = tmp_path / "lines.txt", tmp_path / "answers.txt"
    lines.write_text("a lovely film\n" * 300)
    terminal, slave = pty.openpty()
    command = [*COMMAND, "classify", str(bundles["albert"]), "--engine", "tflite"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with lines.open() as stdin, answers.open("w") as stdout:
        given = stdin if from_file else subprocess.PIPE
        process = subprocess.Popen(command, stdin=given, stdout=stdout, stderr=slave, env=environment)
        os.close(slave)
        drawn = drain(process, terminal, None if from_file else lines.read_bytes())
    assert process.wait() == 0
    assert len(answers.read_text().splitlines()) == 300
    assert {line.split("\t")[1] for line in answers.read_text().splitlines()} == {"a lovely film"}
    assert "labelling" in drawn and ("/300" in drawn) == from_file


def drain(process: subprocess.Popen[bytes], terminal: int, content: bytes | None) -> str:
    """What is written to the terminal until it is left; `content` goes into the process first."""
    if content is not None and process.stdin:
        process.stdin.write(content)
        process.stdin.close()
    drawn = b""
    with contextlib.suppress(OSError):  # so Linux says that nobody has it open any more
        while part := os.read(terminal, 4096):
            drawn += part
    os.close(terminal)
    return drawn.decode()


def piped(bundles: dict[str, Path], content: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [*COMMAND, "classify", str(bundles["albert"]), "--engine", "tflite"]
    return subprocess.run(command, input=content, capture_output=True, check=False)


def test_a_table_that_is_too_wide_becomes_several() -> None:
    """No name and no figure is cut, however narrow the terminal."""
    items, narrow, wide = [f"checkpoint-{i}" for i in range(6)], io.StringIO(), io.StringIO()

    def build(part: Sequence[str]) -> Table:
        table = make_table("title", ("", *part))
        table.add_row("a row whose name is 31 long....", *("1234.56" for _ in part))
        return table

    for target, width in ((narrow, 50), (wide, 200)):
        print_in_parts(Console(width=width, file=target), items, build)
        assert all(item in target.getvalue() for item in items)
        assert target.getvalue().count("1234.56") == len(items)
    assert narrow.getvalue().count("a row whose name is 31 long....") == len(items)
    assert wide.getvalue().count("a row whose name is 31 long....") == 1


@pytest.mark.parametrize("command", ["classify", "inspect", "check", "bench", "chat", "compare", "distill", "export"])
def test_help_cuts_no_name_at_80_columns(command: str) -> None:
    done = shell('"$@"', command, "--help", COLUMNS="80", NO_COLOR="1")
    assert (done.returncode, "…" in done.stdout) == (0, False)


@pytest.mark.parametrize("command", ["classify", "chat", "check"])
def test_help_says_which_engine_takes_no_number_of_threads(command: str) -> None:
    done = shell('"$@"', command, "--help", COLUMNS="80", NO_COLOR="1")
    assert "coreml chooses its own" in " ".join(done.stdout.replace("│", " ").split())


def test_one_text_where_several_belong_says_what_to_call(bundles: dict[str, Path]) -> None:
    with Classifier.open(bundles["albert"], "tflite") as classifier:
        with pytest.raises(TypeError, match="logits and classify_batch take a list of texts"):
            classifier.logits("abc")
        with pytest.raises(TypeError, match="logits and classify_batch take a list of texts"):
            classifier.classify_batch("abc")
        with pytest.raises(TypeError, match="a text is a str, not list: pass several to classify_batch or logits"):
            classifier(["a"])  # type: ignore[arg-type]
