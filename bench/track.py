"""What tracking costs: every figure beside its rivals, taken in one run, told as ratios.

    python bench/track.py [--quick] [--out DIR]

Writes DIR/track.json and, drawn, DIR/track.html. Ends with status 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import mmap
import os
import platform
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xxhash

import mkwrite

PAGE = mmap.PAGESIZE
MIB = 1 << 20
SHARES = (0, 0.0001, 0.01, 0.1, 1)


def memory(nbytes: int, *, huge: bool = False) -> np.ndarray:
    """Private memory, touched, aligned to 2 MiB, of 4 KiB or of huge pages."""
    mapping = mmap.mmap(-1, nbytes + 2 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mapping.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
    whole = np.frombuffer(mapping, np.uint8)
    whole[:] = 1
    start = -whole.ctypes.data % (2 * MIB)
    return whole[start : start + nbytes]


def median(samples: Iterator[float] | list[float]) -> float:
    return statistics.median(list(samples))


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def store_to(array: np.ndarray, share: float, rng: np.random.Generator) -> int:
    """A byte stored to that share of the pages, scattered; returns how many."""
    pages = array.nbytes // PAGE
    chosen = rng.permutation(pages)[: int(pages * share)]
    array[chosen * PAGE] += 1
    return len(chosen)


class Bare:
    """The ioctl alone, into one vector made before."""

    def __init__(self, array: np.ndarray) -> None:
        self.start, self.stop = array.ctypes.data, array.ctypes.data + array.nbytes
        self.pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
        self.vector = np.zeros((array.nbytes // PAGE + 1, 3), np.uint64)

    def __call__(self) -> None:
        packed = struct.pack(
            "12Q", 96, 3, self.start, self.stop, 0, self.vector.ctypes.data, len(self.vector),
            0, 0, 2, 0, 2,
        )  # fmt: skip
        fcntl.ioctl(self.pagemap, 0xC0606610, bytearray(packed))


def fork_and_wait() -> None:
    """What a snapshot by fork() costs before the child has done anything."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def finding(nbytes: int, shares: tuple[float, ...], repeats: int) -> list[dict[str, float]]:
    """Seconds to find what changed, by share of pages stored to."""
    array = memory(nbytes)
    rng = np.random.default_rng(0)
    rows = []
    for share in shares:
        take, bare = [], []
        with mkwrite.track(array) as tracker:
            ioctl = Bare(array)
            for _ in range(repeats):  # in turns, so that both meet the same machine
                store_to(array, share, rng)
                take.append(timed(tracker.take))
                store_to(array, share, rng)
                bare.append(timed(ioctl))
            tracker.clear()
        rivals = max(1, repeats // 3)
        copy = array.copy()
        rows.append(
            {
                "bytes": nbytes,
                "share": share,
                "take": median(take),
                "bare ioctl": median(bare),
                "xxh3": median(timed(lambda: xxhash.xxh3_128_digest(array)) for _ in range(rivals)),
                "numpy compare": median(
                    timed(lambda c=copy: np.flatnonzero((array != c).reshape(-1, PAGE).any(1)))
                    for _ in range(rivals)
                ),
                "fork": median(timed(fork_and_wait) for _ in range(rivals)),
            }
        )
        del copy
    return rows


@contextmanager
def compiled() -> Iterator[ctypes.CDLL]:
    source = Path(__file__).with_name("stores.c")
    with tempfile.TemporaryDirectory() as tmp:
        library = Path(tmp, "stores.so")
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
        stores = ctypes.CDLL(str(library))
        stores.store.restype = ctypes.c_double
        yield stores


def storing(nbytes: int, repeats: int) -> list[dict[str, float | str]]:
    """Nanoseconds a store, by the same compiled loop, on 4 KiB and on huge pages."""
    rows: list[dict[str, float | str]] = []
    with compiled() as stores:
        for kind in ("4 KiB", "huge"):
            stride = 1 if kind == "4 KiB" else 512
            figures: dict[str, list[float]] = {
                "untracked": [], "tracked": [], "second": [], "bare": []
            }  # fmt: skip
            for _ in range(repeats):
                array = memory(nbytes, huge=kind == "huge")
                start = ctypes.c_void_p(array.ctypes.data)
                pages = ctypes.c_size_t(nbytes // PAGE)
                store = lambda: stores.store(start, pages, ctypes.c_size_t(stride))  # noqa: B023, E731
                figures["untracked"].append(store())
                with mkwrite.track(array):
                    figures["tracked"].append(store())
                    figures["second"].append(store())
                array = memory(nbytes, huge=kind == "huge")
                start = ctypes.c_void_p(array.ctypes.data)
                fd = stores.bare_arm(start, ctypes.c_size_t(nbytes))
                if fd < 0:
                    raise OSError("bare_arm: userfaultfd is not to be had")
                figures["bare"].append(store())
                os.close(fd)
            rows.append({"pages": kind} | {name: median(all_) for name, all_ in figures.items()})
    return rows


def saving(nbytes: int, repeats: int) -> dict[str, float]:
    """Seconds and bytes of a save with 1 % of pages changed, against np.save of everything."""
    array = memory(nbytes)
    rng = np.random.default_rng(0)
    save, numpy = [], []
    with tempfile.TemporaryDirectory() as tmp, mkwrite.track(array) as tracker:
        tracker.save(Path(tmp, "whole"))
        for turn in range(repeats):
            store_to(array, 0.01, rng)
            save.append(timed(lambda t=turn: tracker.save(Path(tmp, f"{t}.delta"))))
            with open(Path(tmp, "full.npy"), "wb") as f:
                numpy.append(
                    timed(lambda f=f: (np.save(f, array), f.flush(), os.fsync(f.fileno())))
                )
        return {
            "bytes": nbytes,
            "save": median(save),
            "save bytes": Path(tmp, "0.delta").stat().st_size,
            "np.save": median(numpy),
            "np.save bytes": Path(tmp, "full.npy").stat().st_size,
        }


def targets(results: dict) -> list[tuple[str, float, str, float]]:
    """(what, figure, "<=" or ">=", target)."""
    one = next(
        row
        for row in results["finding"]
        if row["share"] == 0.01 and row["bytes"] == results["size"]
    )
    small = results["storing"][0]
    return [
        ("xxh3 of everything / take(), 1 %", one["xxh3"] / one["take"], ">=", 30),
        ("take() / bare ioctl, 1 %", one["take"] / one["bare ioctl"], "<=", 2),
        ("tracked / bare first store, 4 KiB", small["tracked"] / small["bare"], "<=", 1.3),
        ("second / untracked store, 4 KiB", small["second"] / small["untracked"], "<=", 1.3),
    ]


def draw(results: dict, path: Path) -> None:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    names = ["take", "bare ioctl", "xxh3", "numpy compare", "fork"]
    figure = make_subplots(
        rows=2, cols=1, vertical_spacing=0.14,
        subplot_titles=(
            "Finding what changed, by share of pages stored to",
            "Finding what changed at 1 %, by size",
        ),
    )  # fmt: skip
    colours = dict(zip(names, ["#c2410c", "#111827", "#2563eb", "#7c3aed", "#059669"], strict=True))
    for name in names:
        line = {"name": name, "line": {"color": colours[name]}, "legendgroup": name}
        rows = [row for row in results["finding"] if row["bytes"] == results["size"]]
        figure.add_scatter(
            x=[f"{100 * row['share']:g} %" for row in rows],
            y=[1000 * row[name] for row in rows], row=1, col=1, **line,
        )  # fmt: skip
        rows = results["curve"]
        figure.add_scatter(
            x=[row["bytes"] / MIB for row in rows], y=[1000 * row[name] for row in rows],
            row=2, col=1, showlegend=False, **line,
        )  # fmt: skip
    figure.update_yaxes(type="log", title="milliseconds")
    figure.update_xaxes(title="pages stored to", row=1, col=1)
    figure.update_xaxes(type="log", title="MiB", row=2, col=1)
    figure.update_layout(template="plotly_white", height=900, title="mkwrite: the cost of tracking")
    assert isinstance(figure, go.Figure)
    figure.write_html(path, include_plotlyjs=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="64 MiB, few repeats")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    size, repeats = (64 * MIB, 5) if options.quick else (1024 * MIB, 15)
    largest = size if options.quick else 8192 * MIB
    sizes = [n for n in (MIB << k for k in range(0, 14, 2)) if n < largest] + [largest]
    results = {
        "machine": platform.machine(), "kernel": platform.release(), "cpus": os.cpu_count(),
        "python": platform.python_version(), "numpy": np.__version__, "size": size,
        "finding": finding(size, SHARES, repeats),
        "curve": [finding(n, (0.01,), 5)[0] for n in sizes],
        "storing": storing(min(size, 256 * MIB), 5),
        "saving": saving(size, 5),
    }  # fmt: skip
    verdicts = targets(results)
    results["targets"] = [
        {"what": what, "figure": figure, "target": f"{sign} {target}"}
        for what, figure, sign, target in verdicts
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "track.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(results, options.out / "track.html")
    return show(results, verdicts, options.out)


def show(results: dict, verdicts: list[tuple[str, float, str, float]], out: Path) -> int:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for key, unit, scale in (("finding", "ms", 1e3), ("curve", "ms", 1e3), ("storing", "ns", 1)):
        table = Table(title=f"{key}, {unit}")
        for column in results[key][0]:
            table.add_column(column, justify="right")
        for row in results[key]:
            table.add_row(
                *(
                    f"{value / MIB:g} MiB" if name == "bytes"
                    else f"{100 * value:g} %" if name == "share"
                    else value if isinstance(value, str)
                    else f"{value * scale:.2f}"
                    for name, value in row.items()
                )
            )  # fmt: skip
        console.print(table)
    saving = results["saving"]
    console.print(
        f"save() of 1 %: {saving['save'] * 1e3:.0f} ms, {saving['save bytes'] / MIB:.1f} MiB; "
        f"np.save: {saving['np.save'] * 1e3:.0f} ms, {saving['np.save bytes'] / MIB:.0f} MiB"
    )
    missed = 0
    for what, figure, sign, target in verdicts:
        met = figure <= target if sign == "<=" else figure >= target
        missed += not met
        console.print(
            f"{'met   ' if met else 'MISSED'} {what}: {figure:.2f} (target {sign} {target})"
        )
    console.print(f"{out}/track.json, {out}/track.html")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
