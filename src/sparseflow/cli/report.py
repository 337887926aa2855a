"""`sparseflow report`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from sparseflow.core import BadStore, UnknownName
from sparseflow.report import write_report
from sparseflow.study import Store, server_url, store_of


def run_report(console: Console, folder: Path, url: str | None, study: str | None) -> None:
    """Write the report of a study of the folder, or of a server."""
    store = store_of(folder, None if url is None else server_url(url))
    try:
        name = _named(store, study)
        if name is not None:
            store.narrow(name)
        console.print(f"report: {write_report(store, folder, name)}")
    finally:
        store.close()


def _named(store: Store, study: str | None) -> str | None:
    names = [name for name, _, _ in store.studies()]
    if study is None and store.shows_everyones and len(names) > 1:
        raise BadStore(f"{store.label} holds {len(names)} studies; name one with --study: {', '.join(names)}")
    if study is not None and study not in names:
        raise UnknownName(f"study of {store.label}", study, names)
    return study or (names[0] if names else None)
