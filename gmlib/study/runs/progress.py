"""How far a sweep is: a bar, fed by small notes that runs post from wherever they are."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

from gmlib.study.plan.config import RunConfig

__all__ = ["post", "progress_bar"]

_POLL_SECONDS = 0.5


def post(board: Path, run_id: str, done: float, test_error: float) -> None:
    """Note on `board` how far a run is, in a small file that is there completely or not at all."""
    with suppress(OSError):  # no board, as on another machine, or no room: no reason to fail
        draft = board / f"{run_id}.{threading.get_ident()}"
        draft.write_text(f"{done} {test_error}")
        draft.replace(board / run_id)


class _Terminal(io.TextIOBase):
    """The standard error, and in a notebook's kernel the terminal that started it as well.

    A kernel sends its standard error to the notebook alone, where somebody who runs it with
    papermill would not see how far it is.
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
        super().close()  # flushes the streams, which have to be open for that
        for stream in self._streams[1:]:
            stream.close()


@contextmanager
def progress_bar(configs: Sequence[RunConfig], board: Path) -> Iterator[None]:
    """A bar that counts epochs over all runs, fed by the notes on `board`."""
    work = {config.run_id: max(config.epochs, 1) for config in configs}
    done = dict.fromkeys(work, 0.0)
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(_POLL_SECONDS):
            refresh()

    def refresh() -> None:
        latest = ""
        for config in configs:
            note = board / config.run_id
            if not note.exists():
                continue
            fraction, error = map(float, note.read_text().split())
            if fraction > done[config.run_id]:
                done[config.run_id] = fraction
                latest = f"{config.arm} seed {config.seed}: {100 * error:.2f} % error"
        finished = sum(fraction >= 1.0 for fraction in done.values())
        bar.set_description_str(f"{finished}/{len(work)} runs", refresh=False)
        if latest:
            bar.set_postfix_str(latest, refresh=False)
        bar.n = round(sum(work[run_id] * fraction for run_id, fraction in done.items()), 2)
        bar.refresh()

    with (
        closing(_Terminal()) as terminal,
        tqdm(
            file=terminal,
            total=sum(work.values()),
            unit="epoch",
            ascii=False,
            desc=f"0/{len(work)} runs",
            bar_format="{desc} |{bar}| {n:.4g}/{total} epochs [{elapsed}<{remaining}]{postfix}",
        ) as bar,
    ):
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
            refresh()
