"""Progress of a sweep: runs done, the last error, the time left."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from tqdm import tqdm

from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.records import RunRecord

__all__ = ["progress_bar"]


class _Terminal(io.TextIOBase):
    """Standard error and, in a notebook's kernel, the terminal that started it as well.

    A kernel sends its standard error only to the notebook, where somebody who runs it with
    papermill would not see the progress.
    """

    def __init__(self) -> None:
        self._streams = [sys.stderr]
        descriptor = getattr(sys.stderr, "_original_stdstream_copy", None)  # ipykernel's
        if descriptor is not None:
            self._streams.append(os.fdopen(os.dup(descriptor), "w"))

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self._streams:
            stream.flush()

    def close(self) -> None:
        super().close()  # flushes the streams, which must still be open
        for stream in self._streams[1:]:
            stream.close()


@contextmanager
def progress_bar(configs: Sequence[RunConfig]) -> Iterator[Callable[[RunRecord], None]]:
    """Show a progress bar over runs, and yield the function to call with each finished record.

    The time left is estimated from epochs, since runs may differ in their number of epochs.
    """
    done = 0

    def tell(record: RunRecord) -> None:
        nonlocal done
        done += 1
        config, error = record.config, record.curves["test_error"][-1]
        bar.set_description_str(f"{done}/{len(configs)} runs", refresh=False)
        bar.set_postfix_str(
            f"{config.label} seed {config.seed}: {100 * error:.2f} % error", refresh=False
        )
        bar.update(max(config.epochs, 1))
        bar.refresh()

    with (
        closing(_Terminal()) as terminal,
        tqdm(
            file=terminal,
            total=sum(max(config.epochs, 1) for config in configs),
            unit="epoch",
            ascii=False,
            desc=f"0/{len(configs)} runs",
            bar_format="{desc} |{bar}| {n}/{total} epochs [{elapsed}<{remaining}]{postfix}",
        ) as bar,
    ):
        yield tell
