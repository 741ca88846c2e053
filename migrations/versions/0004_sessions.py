"""Browsers that are signed in, and the codes that sign them in."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    for name, columns in (("sessions", ["created_at", "expires_at"]), ("login_codes", ["expires_at"])):
        op.create_table(
            name,
            sa.Column("mac", sa.String(64), nullable=False),
            sa.Column("key_id", sa.String(24), nullable=False),
            *(sa.Column(column, sa.Double(), nullable=False) for column in columns),
            sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=f"fk_{name}_key_id"),
            sa.PrimaryKeyConstraint("mac", name=f"pk_{name}"),
        )
        op.create_index(f"ix_{name}_key_id", name, ["key_id"])
        op.create_index(f"ix_{name}_expires_at", name, ["expires_at"])


def downgrade() -> None:
    """Undo."""
    for name in ("login_codes", "sessions"):
        op.drop_table(name)
