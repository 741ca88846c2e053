"""Make every secret of the stack that does not exist yet, each in the volume of those who need it.

Run once before everything else. Removing a volume of secrets without the data that it opens locks that data.
"""

import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

ROOT = Path("/run/husai")
OURS = 0o400
THEIRS = 0o444  # for a server that runs as another user; nobody else mounts the volume


def keep(path: Path, text: str, mode: int) -> str:
    """Write a file unless it exists, whole or not at all; returns what it holds."""
    if not path.exists():
        temporary = path.with_name(f".{path.name}")
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600)
        temporary.write_text(text)
        temporary.chmod(mode)
        temporary.rename(path)
        print(f"made {path}")
    return path.read_text()


def signing_key() -> str:
    """A new Ed25519 key in PEM."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def main() -> None:
    """Make what is missing."""
    os.umask(0o022)
    postgres = keep(ROOT / "postgres/password", secrets.token_hex(32), THEIRS)
    keep(ROOT / "postgres/url", f"postgresql+psycopg://husai:{postgres}@postgres:5432/husai", OURS)
    redis = keep(ROOT / "redis/redis.conf", f"requirepass {secrets.token_hex(32)}\n", THEIRS).split()[1]
    keep(ROOT / "redis/url", f"redis://:{redis}@redis:6379/0", OURS)
    keep(ROOT / "api/secret", secrets.token_hex(32), OURS)
    keep(ROOT / "signing/key.pem", signing_key(), OURS)


if __name__ == "__main__":
    main()
