"""Arguments that several commands take, with the words that --help has for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pocketbert.runtime.engines import MAX_THREADS

Bundle = Annotated[Path, typer.Argument(help="A bundle made by `pocketbert export`.")]
EngineName = Annotated[str | None, typer.Option(help="tflite, executorch or coreml; the best installed by default.")]
Threads = Annotated[int, typer.Option(min=1, max=MAX_THREADS, help="Threads of the engine; coreml chooses its own.")]
Data = Annotated[
    Path | None,
    typer.Option(
        help=".tsv, .csv or .jsonl with text and label; .conll with words and tags; SQuAD .json of questions."
    ),
]
Columns = Annotated[str | None, typer.Option(help="The columns of a file without header, in order: label,text.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Use the first N rows of the data.")]
TextPair = Annotated[
    str | None, typer.Option(help="The second text of a pair; of a question, the text to answer it from.")
]
