"""Claims by an index, evidence by subject, the chain's head, signing keys, assets, work and public badges."""

import base64
import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UNFINISHED = "state IN ('waiting', 'queued', 'running')"
NEW_COLUMNS = {
    "owners": ["served_at"],
    "executions": ["assets", "work"],
    "candidates": ["public_badge"],
    "workers": ["problem"],
}


def upgrade() -> None:
    """Apply. Old results and decisions are entered in the new tables."""
    op.add_column("owners", sa.Column("served_at", sa.Double(), nullable=True))
    op.add_column("executions", sa.Column("assets", sa.JSON(), nullable=True))
    op.add_column("executions", sa.Column("work", sa.JSON(), nullable=True))
    op.add_column("candidates", sa.Column("public_badge", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("workers", sa.Column("problem", sa.String(), nullable=True))
    op.drop_index("ix_executions_claim", table_name="executions")
    op.create_index(
        "ix_executions_claim", "executions", ["state", "queue", "device", "priority", "owner_id", "id"], unique=False
    )
    op.create_index("ix_executions_speed", "executions", ["kind", "device", "finished_at"], unique=False)
    _shared_while(f"shared AND {UNFINISHED[:-1]}, 'blocked')")
    op.create_table(
        "subjects",
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("execution_id", sa.String(length=24), nullable=False),
        sa.ForeignKeyConstraint(["execution_id"], ["executions.id"], name=op.f("fk_subjects_execution_id")),
        sa.PrimaryKeyConstraint("subject", "execution_id", name=op.f("pk_subjects")),
    )
    op.create_table(
        "chain_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("chain", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chain_head")),
    )
    op.create_table(
        "signing_keys",
        sa.Column("keyid", sa.String(length=64), nullable=False),
        sa.Column("public_key", sa.String(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("keyid", name=op.f("pk_signing_keys")),
    )
    _enter_subjects()
    _enter_decisions()


def _shared_while(condition: str) -> None:
    """Which executions are alone with their digest."""
    op.drop_index("uq_executions_active_digest", table_name="executions")
    op.create_index(
        "uq_executions_active_digest", "executions", ["digest"], unique=True,
        sqlite_where=sa.text(condition), postgresql_where=sa.text(condition),
    )  # fmt: skip


def _enter_subjects() -> None:
    """The checkpoints that each stored result speaks about."""
    results = sa.table("results", sa.column("execution_id"), sa.column("result", sa.JSON()))
    subjects = sa.table("subjects", sa.column("subject"), sa.column("execution_id"))
    speaking = sa.cast(results.c.result, sa.Text).contains('"subject"')
    for execution_id, result in op.get_bind().execute(sa.select(results).where(speaking)).all():
        named = result.get("subject")
        digests = {digest for digest in named if isinstance(digest, str)} if isinstance(named, list) else set()
        for digest in sorted(digests):
            op.execute(subjects.insert().values(subject=digest, execution_id=execution_id))


def _enter_decisions() -> None:
    """The last decision becomes the head of the chain, and every key that signed one is remembered."""
    decisions = sa.table("decisions", *map(sa.column, ("seq", "chain", "public_key", "created_at")))
    rows = op.get_bind().execute(sa.select(decisions).order_by(decisions.c.seq)).all()
    if not rows:
        return
    head = sa.table("chain_head", *map(sa.column, ("id", "seq", "chain")))
    keys = sa.table("signing_keys", *map(sa.column, ("keyid", "public_key", "since")))
    op.execute(head.insert().values(id=1, seq=rows[-1].seq, chain=rows[-1].chain))
    for public_key, since in {row.public_key: row.created_at for row in reversed(rows)}.items():
        keyid = hashlib.sha256(base64.b64decode(public_key)).hexdigest()
        op.execute(keys.insert().values(keyid=keyid, public_key=public_key, since=since))


def downgrade() -> None:
    """Undo."""
    for table in ("signing_keys", "chain_head", "subjects"):
        op.drop_table(table)
    _shared_while(f"shared AND {UNFINISHED}")
    op.drop_index("ix_executions_speed", table_name="executions")
    op.drop_index("ix_executions_claim", table_name="executions")
    op.create_index("ix_executions_claim", "executions", ["state", "queue", "priority"], unique=False)
    for name, columns in NEW_COLUMNS.items():
        for column in columns:  # in place: SQLite cannot drop and remake a table that rows of others refer to
            op.drop_column(name, column)
