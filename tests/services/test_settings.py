"""A wrong setting is one line and an exit status; a secret may come from a file and is never shown."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.settings import Settings

ROOT = Path(__file__).parents[2]
PLACES = {"HUSAI_DATABASE_URL": "postgresql://h/d", "HUSAI_BROKER_URL": "redis://h:1/0"}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"HUSAI_DATABASE_URL": "nonsense"}, "HUSAI_DATABASE_URL: not the address of a database"),
        ({"HUSAI_DATABASE_URL": "mysql://h/d"}, "HUSAI_DATABASE_URL: not the address of a database"),
        ({"HUSAI_DATABASE_URL": "postgresql+psycopg2://h/d"}, "HUSAI_DATABASE_URL: not the address of a database"),
        ({"HUSAI_DATABASE_URL": "postgresql://h:s3cr#et/d"}, "HUSAI_DATABASE_URL: not the address of a database"),
        ({**PLACES, "HUSAI_BROKER_URL": "redis://:s3cr#et@h/0"}, "HUSAI_BROKER_URL: not the address of a Redis"),
        ({**PLACES, "HUSAI_BROKER_URL": "amqp://h/0"}, "HUSAI_BROKER_URL: not the address of a Redis"),
        ({"HUSAI_BROKER_URL": "redis://h/0"}, "lab mode, which keeps its jobs in Postgres"),
        ({"HUSAI_SLOTS": "many"}, "HUSAI_SLOTS: "),
        ({"HUSAI_BROKER_URL_FILE": "/nowhere/url"}, "/nowhere/url: No such file"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path: Path, variables: dict[str, str], message: str) -> None:
    environment = {"PATH": os.environ["PATH"], "HUSAI_HOME": str(tmp_path), **variables}
    run = subprocess.run(
        [sys.executable, "-c", "from services.settings import load; load()"],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("husai: ")
    assert message in run.stderr
    assert run.stderr.count("\n") == 1
    assert "s3cr" not in run.stderr


def test_a_setting_comes_from_a_file_unless_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text("postgresql://file/d\n")
    monkeypatch.setenv("HUSAI_DATABASE_URL_FILE", str(tmp_path / "url"))
    assert Settings(home=tmp_path).database == "postgresql://file/d"
    monkeypatch.setenv("HUSAI_DATABASE_URL", "postgresql://given/d")
    assert Settings(home=tmp_path).database == "postgresql://given/d"


def test_a_home_that_others_can_read_is_closed_to_them(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    assert Settings(home=home).root == home
    assert home.stat().st_mode & 0o777 == 0o700


def test_a_folder_for_everybody_is_no_home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everybody = tmp_path / "tmp"
    everybody.mkdir()
    everybody.chmod(0o1777)
    with pytest.raises(SystemExit) as refused:
        _ = Settings(home=everybody).root
    assert refused.value.code == 2
    assert "is a folder for everybody" in capsys.readouterr().err
    assert everybody.stat().st_mode & 0o7777 == 0o1777
