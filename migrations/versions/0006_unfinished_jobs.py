"""The unfinished jobs of an owner, counted from an index at each submission."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ASKED_FOR = sa.text("parent_id IS NULL AND state IN ('waiting', 'queued', 'running', 'blocked')")


def upgrade() -> None:
    """Apply."""
    op.create_index("ix_jobs_asked_for", "jobs", ["owner_id"], sqlite_where=ASKED_FOR, postgresql_where=ASKED_FOR)


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_jobs_asked_for", table_name="jobs")
