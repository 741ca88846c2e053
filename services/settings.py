"""Every setting, read from the environment with the prefix `HUSAI_`.

`HUSAI_X_FILE` names a file that holds the setting `HUSAI_X`, which is how containers hand over secrets.
"""

import os
import sys
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from husai_core.folders import make_private

PREFIX = "HUSAI_"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Files(PydanticBaseSettingsSource):
    """Settings whose values are in files."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The text of the file that the environment names for a field, or None."""
        path = os.environ.get(f"{PREFIX}{field_name.upper()}_FILE")
        return (Path(path).read_text().strip() if path else None), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Every field that is given by a file."""
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


class Settings(BaseSettings):
    """Where things live and how much is allowed. The defaults are embedded mode; a broker makes it lab mode."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", hide_input_in_errors=True)

    home: Path = Field(default=Path("~/.husai"), description="folder of the embedded database, artifacts, logs, keys")
    database_url: str = Field(default="", description="SQLAlchemy URL; empty means SQLite below `home`")
    broker_url: str = Field(default="", description="Redis URL of the job queues; empty means embedded mode")
    artifact_url: str = Field(default="", description="fsspec URL of the artifact store; empty means below `home`")
    device: str = Field(default="auto", pattern="^(auto|cpu|cuda)$", description="what `device: auto` resolves to")
    slots: int = Field(default=0, ge=0, description="jobs run at once by one worker; 0 chooses from the device")
    threads: int = Field(default=0, ge=0, description="CPU threads of one job; 0 means cores divided by slots")
    warm: str = Field(
        default="full",
        pattern="^(full|light|none)$",
        description="what workers import ahead: `light` is without language models and statistics, `none` is nothing",
    )
    lease_seconds: float = Field(default=60, gt=0, description="time after which a silent worker has lost its job")
    poll_seconds: float = Field(default=0.025, gt=0, description="how often an idle worker looks for work")
    max_attempts: int = Field(default=3, ge=1, description="tries of one execution after lost workers")
    grace_seconds: float = Field(default=30, gt=0, description="time a draining worker gives its jobs to checkpoint")
    max_body_bytes: int = Field(default=1 << 20, gt=0, description="largest JSON request body")
    max_upload_bytes: int = Field(default=8 << 30, gt=0, description="largest uploaded file")
    max_queued: int = Field(default=10_000, ge=1, description="unfinished jobs one owner may have")
    allowed_hosts: str = Field(
        default="localhost,127.0.0.1,[::1]",
        description="names under which browsers may reach the web pages, besides the address that is listened on",
    )
    trusted_proxies: str = Field(
        default="127.0.0.1,::1",
        description="addresses and networks of proxies whose X-Forwarded-Proto is believed, separated by commas",
    )
    share_results: bool = Field(default=True, description="equal jobs of other owners may be reused")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then files."""
        return init_settings, env_settings, _Files(settings_cls)

    @field_validator("database_url")
    @classmethod
    def _database(cls, url: str) -> str:
        if not url:
            return url
        try:
            driver = make_url(url).get_dialect().driver if url.startswith(("sqlite", "postgresql")) else ""
        except (SQLAlchemyError, ValueError):
            driver = ""
        if driver not in ("pysqlite", "psycopg"):
            raise ValueError("not the address of a database, such as postgresql://husai@localhost/husai")
        return url

    @field_validator("broker_url")
    @classmethod
    def _broker(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            fit = not url or (parts.scheme in ("redis", "rediss") and parts.port != 0 and parts.path[1:].isdecimal())
        except ValueError:
            fit = False
        if not fit:
            raise ValueError("not the address of a Redis database, such as redis://localhost:6379/0")
        return url

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.broker_url and (not self.database_url or self.database_url.startswith("sqlite")):
            raise ValueError("HUSAI_BROKER_URL asks for lab mode, which keeps its jobs in Postgres: set"
                             " HUSAI_DATABASE_URL, too")  # fmt: skip
        return self

    @property
    def lab(self) -> bool:
        """True in lab mode: queues on Redis wake workers on any host."""
        return bool(self.broker_url)

    @cached_property
    def root(self) -> Path:
        """The home folder, made on first use and readable by its owner only.

        Raises:
            SystemExit: others could read it, and it is not ours to close; or it cannot be made.
        """
        path = self.home.expanduser().absolute()
        try:
            make_private(path)
        except OSError as wrong:
            sys.exit(_refuse(f"{wrong.filename}: {wrong.strerror}" if wrong.filename else str(wrong)))
        return path

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.root / 'husai.db'}"

    @property
    def artifacts(self) -> str:
        """The fsspec URL of the artifact store in force."""
        return self.artifact_url or str(self.root / "artifacts")

    def hosts(self, address: str = "") -> frozenset[str]:
        """The names under which browsers may reach the pages of a server that listens on `address`."""
        names = {name.strip().lower() for name in self.allowed_hosts.split(",") if name.strip()}
        if address and address not in ("0.0.0.0", "::"):
            names.add(f"[{address}]" if ":" in address else address.lower())
        return frozenset(names)

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


def load() -> Settings:
    """The settings in force; a wrong one ends the process with one line and exit status 2."""
    try:
        return Settings()
    except ValidationError as wrong:
        first = wrong.errors()[0]
        name = f"{PREFIX}{str(first['loc'][0]).upper()}: " if first["loc"] else ""
        sys.exit(_refuse(name + first["msg"].removeprefix("Value error, ")))
    except OSError as wrong:
        sys.exit(_refuse(f"{wrong.filename}: {wrong.strerror}"))


def _refuse(why: str) -> int:
    print(f"husai: {why}", file=sys.stderr)
    return 2
