"""Every setting, read from the environment with the prefix `HUSAI_`."""

import os
from functools import cached_property
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Settings(BaseSettings):
    """Where things live and how much is allowed. The defaults are embedded mode."""

    model_config = SettingsConfigDict(env_prefix="HUSAI_", extra="ignore")

    home: Path = Field(default=Path("~/.husai"), description="folder of the embedded database, artifacts, logs, keys")
    database_url: str = Field(default="", description="SQLAlchemy URL; empty means SQLite below `home`")
    artifact_url: str = Field(default="", description="fsspec URL of the artifact store; empty means below `home`")
    device: str = Field(default="auto", pattern="^(auto|cpu|cuda)$", description="what `device: auto` resolves to")
    slots: int = Field(default=0, ge=0, description="jobs run at once by one worker; 0 chooses from the device")
    threads: int = Field(default=0, ge=0, description="CPU threads of one job; 0 means cores divided by slots")
    lease_seconds: float = Field(default=60, gt=0, description="time after which a silent worker has lost its job")
    poll_seconds: float = Field(default=0.025, gt=0, description="how often an idle worker looks for work")
    max_attempts: int = Field(default=3, ge=1, description="tries of one execution after lost workers")
    grace_seconds: float = Field(default=30, gt=0, description="time a draining worker gives its jobs to checkpoint")
    max_body_bytes: int = Field(default=1 << 20, gt=0, description="largest JSON request body")
    max_upload_bytes: int = Field(default=8 << 30, gt=0, description="largest uploaded file")
    max_queued: int = Field(default=10_000, ge=1, description="unfinished jobs one owner may have")
    share_results: bool = Field(default=True, description="equal jobs of other owners may be reused")

    @cached_property
    def root(self) -> Path:
        """The home folder, made on first use and readable by its owner only."""
        path = self.home.expanduser().absolute()
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.root / 'husai.db'}"

    @property
    def artifacts(self) -> str:
        """The fsspec URL of the artifact store in force."""
        return self.artifact_url or str(self.root / "artifacts")

    @property
    def device_class(self) -> str:
        """`cuda` where an NVIDIA device node exists (or is asked for), else `cpu`; asks no numerical library."""
        if self.device != "auto":
            return self.device
        return "cuda" if Path("/dev/nvidia0").exists() else "cpu"

    @property
    def worker_slots(self) -> int:
        """Jobs that one worker process runs at once: one on a GPU, or one per core but no more than four."""
        return self.slots or (1 if self.device_class == "cuda" else min(4, _cores()))

    @property
    def job_threads(self) -> int:
        """CPU threads given to one job."""
        return self.threads or max(1, _cores() // self.worker_slots)
