"""Alembic's entry: one tree for SQLite and Postgres; the URL comes from the caller or from the settings."""

from alembic import context

from services.db import Database
from services.settings import Settings
from services.tables import Base

url = context.config.attributes.get("url") or Settings().database
database = Database(url)
with database.engine.execution_options(husai_write="alone").connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=database.sqlite,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()
database.close()
