"""What is done before a submission's transaction is not done in it."""

from husai_core import kinds
from services import accounts, jobs
from services.artifacts import Stored, register
from services.db import Database
from services.jobs import Submission
from services.settings import Settings


def test_no_source_is_read_in_the_transaction_once_a_kind_is_prepared(database: Database, settings: Settings) -> None:
    jobs.prepare("study.pipeline")
    before = kinds.code_digest.cache_info().misses
    with database.write() as session:
        owner = accounts.create_owner(session, "ada", "researcher")
        register(session, Stored("a" * 64, "sae", 1), owner.id)
        jobs.submit(session, settings, owner.id, Submission("study.pipeline", {"preset": "smoke"}))
    assert kinds.code_digest.cache_info().misses == before
