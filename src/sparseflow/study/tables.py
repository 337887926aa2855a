"""The tables of a results store (`docs/store.md`)."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

SCHEMA_VERSION = 1

# Names are told apart and sorted by their bytes, as SQLite does, whatever the server's language.
_Name = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")

schema = sa.MetaData()
meta = sa.Table("meta", schema, sa.Column("key", _Name, primary_key=True), sa.Column("value", sa.Text))
studies = sa.Table(
    "studies",
    schema,
    sa.Column("name", _Name, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("started", _Name, nullable=False),
)
runs = sa.Table(
    "runs",
    schema,
    sa.Column("name", _Name, primary_key=True),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("result", sa.Text),
    sa.Column("started", _Name),
    sa.Column("finished", sa.Text),
)
metrics = sa.Table(
    "metrics",
    schema,
    sa.Column("run", _Name, primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True),
    sa.Column("metric", _Name, primary_key=True),
    sa.Column("layer", _Name, primary_key=True),
    sa.Column("epoch", sa.Float, nullable=False),
    sa.Column("value", sa.Float),
)
"""A value that is not finite is NULL."""
trials = sa.Table(
    "trials",
    schema,
    sa.Column("study", _Name, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("point", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
)
verdicts = sa.Table(
    "verdicts",
    schema,
    sa.Column("study", _Name, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("rung", sa.Integer, nullable=False),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("score", sa.Float),
    sa.Column("goes_on", sa.Boolean, nullable=False),
)
"""A score that is not finite is NULL."""

members = sa.Table(
    "members",
    schema,
    sa.Column("study", _Name, primary_key=True),
    sa.Column("run", _Name, primary_key=True),
)
"""Which runs a study of a server is about; a folder's own database is about all of its runs."""
