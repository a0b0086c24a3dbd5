"""Builds one image of a recording again, and leaves it to be looked at: RECORDING SEED COUNT NUMBER."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.powercut.images import cases, judged
from tests.powercut.record import Recording


def main(recording: str, seed: str, count: str, number: str) -> None:
    for case in cases(Recording.load(Path(recording)), seed, int(count)):
        if case.number == int(number):
            directory = Path(tempfile.mkdtemp(prefix="hive-cut-"))
            print(case, *judged(case, directory / "opened"), sep="\n")
            shutil.rmtree(directory / "opened")
            case.image.save(directory)
            print(f"as it was before SQLite opened it: {directory}")
            return
    print("no such image: are the seed and the count the same?")


if __name__ == "__main__":
    main(*sys.argv[1:])
