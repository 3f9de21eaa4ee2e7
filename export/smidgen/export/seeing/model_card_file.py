"""The model card of an export as two files: for people, and for programs."""

from __future__ import annotations

import json
from pathlib import Path

from smidgen.export.result import ExportResult
from smidgen.export.seeing.model_card import model_card, training_facts
from smidgen.export.seeing.model_card_text import as_markdown
from smidgen.runtime.files import write_text
from smidgen.train.run import Run

CARD_FILE, CARD_JSON = "model_card.md", "model_card.json"


def write_model_card(folder: Path, result: ExportResult, run: Run | None = None) -> Path | None:
    """Write ``model_card.md`` and ``model_card.json`` into ``folder``; the path of the first.

    None, and nothing written, where no file was made.

    Raises:
        BundleError: a file was damaged since.
        NotARun: the Run is not whole.
        OutputError: ``folder`` cannot be written to.
    """
    card = model_card(result, None if run is None else training_facts(run))
    if card is None:
        return None
    text = json.dumps(card.as_mapping(), indent=2, sort_keys=True, ensure_ascii=False)
    write_text(folder / CARD_JSON, text + "\n")
    write_text(folder / CARD_FILE, as_markdown(card))
    return folder / CARD_FILE
