"""The draws of a signal propagation in a folder: written one by one, and found again by the same settings."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from sparseflow.core import BadStore, replacing
from sparseflow.measure import Draw, Key

HEADER = (*Key._fields, *(field.name for field in fields(Draw)))


class DrawFile:
    """`draws.csv` of a folder, and `settings.json` beside it: what every draw depends on besides its key.

    A draw is a line that is written at once, so a kill costs the draw that it meets. More draws, densities or
    initialisations of the same settings go on in the same folder.

    Attributes:
        found: every draw of the file.

    Raises:
        BadStore: if the folder holds draws of other settings, a file is damaged, or the folder cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._path = folder / "draws.csv"
        self.found: dict[Key, Draw] = {}
        try:
            if self._path.exists():
                _check_settings(folder, settings)
                self._read()
            else:
                with replacing(folder / "settings.json") as aside:
                    aside.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
            self._file = self._path.open("a", newline="", encoding="utf-8")
        except OSError as error:
            raise BadStore(f"cannot write to the output folder {folder}: {error.strerror}") from None
        self._writer = csv.writer(self._file, lineterminator="\n")
        if not self.found and not self._file.tell():
            self._writer.writerow(HEADER)

    def add(self, key: Key, draw: Draw) -> None:
        """Keep a draw; a process that is killed afterwards leaves it in the file.

        Raises:
            BadStore: if it cannot be written.
        """
        try:
            self._writer.writerow([*key, *astuple(draw)])
            self._file.flush()
        except OSError as error:
            raise BadStore(f"cannot write {self._path}: {error.strerror}") from None
        self.found[key] = draw

    def close(self) -> None:
        self._file.close()

    def _read(self) -> None:
        text = self._path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # the last line was cut off by a kill
            with replacing(self._path) as aside:
                aside.write_text(whole, encoding="utf-8")
        header, *lines = list(csv.reader(whole.splitlines())) or [list(HEADER)]
        try:
            if header != list(HEADER):
                raise ValueError
            for method, density, number, deviation, unreached, dead, fan_in in lines:
                key = Key(method, float(density), int(number))
                self.found[key] = Draw(float(deviation), float(unreached), float(dead), int(fan_in))
        except ValueError:
            raise BadStore(f"{self._path} is damaged; remove it, or give another --out") from None


def _check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    try:
        there = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        raise BadStore(f"{folder} holds draws without readable settings; give another --out") from None
    given = json.loads(json.dumps(settings))  # tuples become lists
    if differing := [
        f"{name} {there.get(name)!r}, now {given.get(name)!r}"
        for name in {**there, **given}
        if there.get(name) != given.get(name)
    ]:
        raise BadStore(f"{folder} holds draws of other settings ({'; '.join(differing)}); give another --out")
