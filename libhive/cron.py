"""A cron line in a time zone: when it comes due, and how a person says it.

A line that names hours means the clock on the wall: each of its times comes once. One that the change to summer time
leaves out comes right after the gap, one that the change back repeats comes the first time only. A line for every hour
means elapsed time, and goes on at its pace through both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from libhive.problems import BadRequest

FIELDS = 5
HINT = (
    "five fields: minute, hour, day of month, month, day of week; `0 9 * * MON-FRI` is 9:00 on working days"
)
_EVERY_HOUR = set(range(24))


@dataclass(frozen=True, slots=True)
class Cron:
    line: str
    zone: tzinfo

    def since(self, instant_ms: int) -> Iterator[int]:
        """Every firing later than the instant, in order, as far as the calendar goes."""
        try:
            for found in CronSim(self.line, datetime.fromtimestamp(instant_ms // 1000, self.zone)):
                # In the repeated hour the line counts from the hour's first time, which may have passed.
                if (at_ms := int(found.timestamp()) * 1000) > instant_ms:
                    yield at_ms
        except (OverflowError, ValueError):
            return  # the year 10000

    def after(self, instant_ms: int) -> int | None:
        return next(self.since(instant_ms), None)


@lru_cache(maxsize=512)
def parse(line: str, zone: str) -> Cron:
    """Raises BadRequest for what is no cron line of five fields, or no time zone."""
    where = _zone(zone)
    if len(line.split()) != FIELDS:
        raise BadRequest(f"{line!r:.120} is not a cron line", HINT)
    try:
        hours = CronSim(line, datetime(2000, 1, 1, tzinfo=UTC)).hours
    except CronSimError as error:
        raise BadRequest(f"{line!r:.120} is not a cron line: {error}", HINT) from None
    minute, hour, *days = line.split()
    # The library takes a field that begins with a star for elapsed time; which of the two it is we decide by the hours.
    hour = "*" if hours == _EVERY_HOUR else hour.replace("*", "0-23")
    minute = minute if hour == "*" else minute.replace("*", "0-59")
    return Cron(" ".join((minute, hour, *days)), where)


def words(line: str, zone: str) -> str:
    """`At 09:00 on Monday through Friday, Europe/Berlin`; the line itself when it cannot be said."""
    try:
        said = CronSim(line, datetime(2000, 1, 1)).explain()
    except CronSimError:
        said = line
    return f"{said}, {zone or 'UTC'}"


def _zone(name: str) -> tzinfo:
    if name in ("", "UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise BadRequest(f"{name!r:.80} is not a time zone", "an IANA name such as Europe/Berlin") from None
