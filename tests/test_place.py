"""Where results are: URLs and what is said of them, and the folder that remembers."""

from __future__ import annotations

import builtins
import json

import pytest

from sparseflow.core import BadStore
from sparseflow.study import Store, server, server_url, store_of
from sparseflow.study.place import store_to_drive

URL = "postgresql://me@host:5433/results"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me@host/db"),
        ("postgres://me:s%40cr%2Fet@host:1/db?sslmode=require", "postgresql://me@host:1/db?sslmode=require"),
        ("postgresql+psycopg:///db?password=secret&host=/run/pg", "postgresql:///db?host=%2Frun%2Fpg"),
    ],
)
def test_a_url_is_printed_without_its_secrets(text, said):
    assert server.public(server.parse(text)) == said
    assert server.parse(text).drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("postgresql://me:se:cret@ho:st/db", "cannot read the database URL; write postgresql://"),
        ("postgresql://me:sec@ret@host/db", "cannot read the database URL"),
        ("secret", "cannot read the database URL"),
        ("mysql://me:secret@host/db", "no results store in mysql:// databases"),
        ("postgresql+asyncpg://me:secret@host/db", "no results store in postgresql+asyncpg://"),
        ("sqlite:///secret.db", "--store names a server: postgresql://USER@HOST:PORT/DATABASE; without it"),
    ],
)
def test_what_names_no_server_is_refused_and_not_repeated(text, said):
    with pytest.raises(BadStore) as error:
        server_url(text)
    assert said in str(error.value)
    assert "sec" not in str(error.value)


def test_a_missing_driver_is_said(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("psycopg"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BadStore, match=r'pip install "sparseflow\[postgres\]"'):
        server_url(URL)


def test_nobody_answers():
    with pytest.raises(BadStore, match=r"^postgresql://me@127.0.0.1:1/db: cannot use the results store: .*refused"):
        Store("postgresql://me:secret@127.0.0.1:1/db", create=True)


@pytest.mark.parametrize(
    ("content", "url", "said"),
    [
        ("{", None, "store.json is damaged; it holds"),
        ('{"url": "postgresql://h/d"}', None, "store.json is damaged"),
        (json.dumps({"url": URL, "studies": []}), "postgresql://me@host/results", f"are in {URL}; leave --store out"),
        (json.dumps({"url": URL, "studies": []}), "postgresql://me:secret@host:5433/other", "are in postgresql"),
    ],
)
def test_a_folder_knows_where_its_results_are(tmp_path, content, url, said):
    (tmp_path / "store.json").write_text(content)
    for opened in (lambda: store_of(tmp_path, url), lambda: store_to_drive(tmp_path, url, "study")):
        with pytest.raises(BadStore) as error:
            opened()
        assert said in str(error.value)
        assert "secret" not in str(error.value)


def test_a_folder_with_a_database_of_its_own_stays_with_it(tmp_path):
    Store(tmp_path, create=True).close()
    with pytest.raises(BadStore, match=r"has a results.db of its own; leave --store out"):
        store_to_drive(tmp_path, URL, "study")
    store = store_to_drive(tmp_path, None, "study")
    assert store.label == str(tmp_path)
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["results.db"]
