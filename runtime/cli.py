"""The `pocketbert` command. What runs a bundle is here; `export` plugs itself in by an entry point.

Takes arguments and stdin. Gives text or JSON on stdout, one line on stderr for what a user can mend.
Exit status: 0 done; 1 a gate was missed; 2 bad usage or bad input.
"""

from __future__ import annotations

import atexit
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketbert.runtime.bench_cli import bench
from pocketbert.runtime.chat import chat
from pocketbert.runtime.check_cli import check
from pocketbert.runtime.engines.quiet import leave_quietly
from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.manifest import PARTS

if TYPE_CHECKING:
    from pocketbert.runtime.classifier import Prediction
    from pocketbert.runtime.manifest import Artifact, Manifest

UsageError: Any = typer.BadParameter.__base__  # typer exports only the subclass
COMMANDS = "pocketbert.commands"  # the entry point group through which other packages add commands
BAD_INPUT = 2
MB = 1_000_000
ARTIFACT_ROWS = ("needs", "entry", "lengths", "activations", "size", *PARTS)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Bundle = Annotated[Path, typer.Argument(help="A bundle made by `pocketbert export`.")]
Engine = Annotated[str | None, typer.Option(help="tflite, executorch or coreml; the best installed by default.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]


@app.callback(invoke_without_command=True)
def _root(show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Fine-tuned BERT, DistilBERT and ALBERT classifiers on phones: export, check, classify."""
    if show_version:
        print(version("pocketbert"))
        raise typer.Exit


@app.command()
def classify(
    bundle: Bundle,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without any, a line of stdin each.")] = None,
    engine: Engine = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the engine.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Label texts with a bundle."""
    from pocketbert.runtime.classifier import Classifier

    with Classifier.open(bundle, engine, threads) as classifier:
        for text in texts or _lines():
            predictions = classifier(text)
            print(_json_line(text, predictions) if as_json else _text_line(text, predictions, classifier.manifest))
            sys.stdout.flush()  # a pipe wants each answer as soon as it is there


@app.command()
def inspect(bundle: Bundle, as_json: AsJson = False) -> None:
    """Show what is in a bundle and where its bytes go; every file is compared with its hash."""
    from pocketbert.runtime import manifest as format

    manifest = format.read(bundle)
    files = [manifest.tokenizer, manifest.tokenizer_tables, manifest.golden]
    files += [file for a in manifest.artifacts for file in a.files]
    format.verify(bundle, files)
    if as_json:
        print(json.dumps(asdict(manifest), indent=1, ensure_ascii=False))
    else:
        _print_manifest(bundle, manifest)


app.command()(check)
app.command()(bench)
app.command()(chat)


def main() -> None:
    """Runs the command; a PocketbertError becomes one line and exit status 2."""
    atexit.register(leave_quietly)
    _plug_in(entry_points(group=COMMANDS))
    try:
        sys.exit(app(standalone_mode=False))
    except UsageError as problem:
        message = problem.format_message()
        _fail(f"{message} (see --help)") if message else sys.exit(BAD_INPUT)  # bare `pocketbert` has printed its help
    except PocketbertError as problem:
        _fail(str(problem))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)  # 128 + SIGINT, what shells expect
    except BrokenPipeError:  # `| head` closed our stdout
        sys.exit(0)


def _plug_in(commands: Iterable[Any]) -> None:
    for command in commands:
        app.command(command.name)(command.load())


def _fail(message: str) -> None:
    print(f"pocketbert: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def _lines() -> Iterator[str]:
    """The lines of stdin, without their ends; bytes that are no UTF-8 become U+FFFD."""
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", "replace").rstrip("\r\n")


def _json_line(text: str, predictions: list[Prediction]) -> str:
    return json.dumps({"text": text, "predictions": [asdict(prediction) for prediction in predictions]})


def _text_line(text: str, predictions: list[Prediction], manifest: Manifest) -> str:
    """The best label, or with several possible labels those over one half."""
    chosen = [p for p in predictions if p.score > 0.5] if manifest.multi_label else predictions[:1]
    labels = ", ".join(f"{p.label} {p.score:.3f}" for p in chosen) or "-"
    return f"{labels}\t{text}"


def _print_manifest(folder: Path, manifest: Manifest) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    rows = {
        "model": f"{manifest.architecture}, {manifest.task}, {manifest.scheme}",
        "source": f"{manifest.source['name']} (weights {manifest.source['weights_sha256'][:12]}…)",
        "labels": f"{', '.join(manifest.labels)} ({'several' if manifest.multi_label else 'one'} at a time)",
        "lengths": f"{', '.join(map(str, manifest.lengths))} tokens, pad id {manifest.pad_id}",
        "made by": ", ".join(f"{tool} {version}" for tool, version in manifest.tools.items()),
    }
    for name, value in rows.items():
        console.print(f"[bold]{name:<8}[/] {value}", highlight=False)
    table = Table("", *(artifact.path for artifact in manifest.artifacts), title=f"{folder}: all hashes match")
    for row in zip(ARTIFACT_ROWS, *(_artifact_column(artifact) for artifact in manifest.artifacts), strict=True):
        table.add_row(*row)
    console.print(table)


def _artifact_column(artifact: Artifact) -> list[str]:
    needs = "\n".join(f"{runtime} {version}" for runtime, version in artifact.requires.items())
    sizes = [_share(artifact.parts[part], artifact.bytes) for part in PARTS]
    lengths = "any" if artifact.any_length else "those listed"
    return [needs, artifact.entry, lengths, artifact.activations, f"{artifact.bytes / MB:.2f} MB", *sizes]


def _share(part: int, total: int) -> str:
    return f"{part / MB:6.2f} MB {part / total:6.1%}"


if __name__ == "__main__":
    main()
