"""`python -m migrations`: bring the database to this version's schema, once it answers."""

import sys
import time

from sqlalchemy.exc import DBAPIError

from services.db import away, upgrade
from services.settings import load

PATIENCE_SECONDS = 60


def main() -> int:
    """Exit status 0 when the schema is at its head, 5 when the database does not answer."""
    url, deadline = load().database, time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            upgrade(url)
        except DBAPIError as error:
            if not away(error):
                raise
            if time.monotonic() > deadline:
                print(f"husai: the database does not answer: {str(error.orig).splitlines()[0]}", file=sys.stderr)
                return 5
            time.sleep(0.5)
        else:
            return 0


if __name__ == "__main__":
    sys.exit(main())
