"""When a decision was judged."""

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. A decision made so far was judged at its gate's `as_of`."""
    with op.batch_alter_table("decisions") as table:
        table.add_column(sa.Column("judged_at", sa.Double(), nullable=True))
    decisions = sa.table("decisions", *map(sa.column, ("seq", "execution_id", "created_at", "judged_at")))
    executions = sa.table("executions", sa.column("id"), sa.column("spec", sa.JSON()))
    judged = sa.select(decisions.c.seq, decisions.c.created_at, executions.c.spec).join_from(
        decisions, executions, executions.c.id == decisions.c.execution_id
    )
    for seq, created_at, spec in op.get_bind().execute(judged).all():
        judged_at = min(created_at, datetime.fromisoformat(spec["as_of"]).timestamp())
        op.execute(decisions.update().where(decisions.c.seq == seq).values(judged_at=judged_at))
    with op.batch_alter_table("decisions") as table:
        table.alter_column("judged_at", nullable=False)


def downgrade() -> None:
    """Undo."""
    with op.batch_alter_table("decisions") as table:
        table.drop_column("judged_at")
