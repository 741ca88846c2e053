"""What a field of a JSON document may hold: digests, ids, names and paths, with the words for what is wrong."""

import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

SHA256 = r"^[0-9a-f]{64}$"
SHA256_PREFIX, ID_PREFIX = r"^[0-9a-f]{8,64}$", r"^[0-9a-f]{8,24}$"
LABEL, NAME = r"^[\w.:/=@-]{1,64}$", r"^[\w.@-]{1,64}$"
SHAPES = {
    SHA256: "a SHA-256 is 64 hexadecimal digits in lower case",
    SHA256_PREFIX: "a SHA-256 is 64 hexadecimal digits in lower case, of which the first 8 may do",
    ID_PREFIX: "a job's id is 24 hexadecimal digits in lower case, of which the first 8 may do",
    LABEL: "a label is 1 to 64 letters, digits and . : / = @ _ -",
    NAME: "a name is 1 to 64 letters, digits and . @ _ -",
}
"""The patterns in words."""
FILE_NAME = r"[^\W_][\w.-]*"
"""The name of a file or folder: letters and digits of every script, and `.`, `_` and `-` behind the first."""
MOST_NAME, MOST_NAME_BYTES, MOST_PARTS = 128, 255, 8
"""Longest name of a file or folder in characters and in bytes of UTF-8, and how many make up a path."""


def _recognisable(path: str) -> str:
    """The path, if it looks like no other one and every file system takes it.

    Raises:
        ValueError: letters and accents are not joined (Unicode NFC), a character is invisible, or it is too long.
    """
    if unicodedata.normalize("NFC", path) != path or any(unicodedata.category(c) == "Cf" for c in path):
        raise ValueError("a file's name must be in Unicode normal form C, without invisible characters")
    names = path.split("/")
    if any(unicodedata.category(name[0])[0] not in "LN" for name in names):
        raise ValueError("a file's name begins with a letter or a digit")
    if len(names) > MOST_PARTS or any(len(n) > MOST_NAME or len(n.encode()) > MOST_NAME_BYTES for n in names):
        raise ValueError(
            f"a file lies at most {MOST_PARTS - 1} folders deep, and a name has at most {MOST_NAME} characters and "
            f"{MOST_NAME_BYTES} bytes of UTF-8"
        )
    return path


Digest = Annotated[str, Field(pattern=SHA256, description="SHA-256, hexadecimal")]
DigestPrefix = Annotated[str, Field(pattern=SHA256_PREFIX, description="SHA-256, or its first 8 digits or more")]
FileName = Annotated[str, Field(pattern=rf"^{FILE_NAME}$"), AfterValidator(_recognisable)]
FilePath = Annotated[str, Field(pattern=rf"^{FILE_NAME}(/{FILE_NAME})*$"), AfterValidator(_recognisable)]
Label = Annotated[str, Field(pattern=LABEL)]
Name = Annotated[str, Field(pattern=NAME)]
JobId = Annotated[str, Field(pattern=ID_PREFIX, description="a job's id, or its first 8 digits or more")]
Priority = Literal["gate", "interactive", "batch", "backfill"]
Device = Literal["auto", "cpu", "cuda"]
Scope = Literal["read", "submit", "gate", "admin"]
Time = Annotated[str, Field(description="RFC 3339, UTC")]
