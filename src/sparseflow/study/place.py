"""Where the results of an output folder are: in its `results.db`, or on the server that its `store.json` names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sparseflow.core import BadStore, replacing
from sparseflow.study import server
from sparseflow.study.store import Store

FILES = ("results.db", "store.json")
"""A folder with one of these holds a study."""


@dataclass(frozen=True)
class Place:
    """A database on a server, and the studies that the folder has asked for, the latest first."""

    url: str
    studies: tuple[str, ...] = ()


def server_url(text: str) -> str:
    """The URL as given, if it names a server and its driver is there.

    Raises:
        BadStore: otherwise.
    """
    url = server.parse(text)
    if not server.is_server(url):
        raise BadStore(f"--store names a server: {server.FORM}; without it results go into the folder's own results.db")
    server.engine(url).dispose()
    return text


def has_results(folder: Path) -> bool:
    """Whether a study was begun in this folder."""
    return any((folder / name).exists() for name in FILES)


def store_of(folder: Path, url: str | None = None) -> Store:
    """The store of a folder's results, to read; of a server it shows the studies of this folder.

    Args:
        url: of a server, all of which is shown where the folder does not know it yet.

    Raises:
        BadStore: if there is none, or the folder's results are elsewhere.
    """
    place = _place(folder, url)
    if place is None:
        return Store(folder)
    return Store(place.url, studies=place.studies or None)


def store_to_drive(folder: Path, url: str | None, study: str) -> Store:
    """The store that a study is to be written into, made if need be; on a server the study is held until it is closed.

    Raises:
        Busy: if another process drives this study.
        BadStore: if the store cannot be had, or the folder's results are elsewhere.
    """
    place = _place(folder, url)
    if place is None:
        return Store(folder, create=True)
    studies = (study, *(other for other in place.studies if other != study))
    store = Store(place.url, create=True, studies=studies)
    try:
        store.claim(study)
        _write(folder, Place(server.public(server.parse(place.url)), studies))
    except BaseException:
        store.close()
        raise
    return store


def _place(folder: Path, url: str | None) -> Place | None:
    known = _read(folder / "store.json")
    if url is None:
        return known
    if (folder / "results.db").exists():
        raise BadStore(f"{folder} has a results.db of its own; leave --store out, or give another --out")
    if known is None:
        return Place(url)
    if _database(url) != _database(known.url):
        raise BadStore(
            f"the results of {folder} are in {known.url}; leave --store out, or give another --out (if the database "
            "has moved, change store.json)"
        )
    return Place(url, known.studies)


def _database(text: str) -> tuple[object, ...]:
    """What tells databases apart; who asks for them does not."""
    url = server.parse(text)
    return (url.host or url.query.get("host"), url.port or url.query.get("port") or 5432, url.database)


def _read(path: Path) -> Place | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Place(str(found["url"]), tuple(map(str, found["studies"])))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BadStore(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise BadStore(f'{path} is damaged; it holds {{"url": "{server.FORM}", "studies": [NAME, ...]}}') from None


def _write(folder: Path, place: Place) -> None:
    path = folder / "store.json"
    try:
        with replacing(path) as aside:
            aside.write_text(json.dumps({"url": place.url, "studies": place.studies}, indent=1), encoding="utf-8")
    except OSError as error:
        raise BadStore(f"cannot write to the output folder {folder}: {error.strerror}") from None
