"""What a waiting person sees: a bar on a terminal, lines in a log file."""

from __future__ import annotations

import io

from smidgen.train.progress import ConsoleProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_log_file_gets_a_line_every_30_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = ConsoleProgress(stream, clock)
    progress.start("head 1/3", 12_000)
    for _ in range(70):  # 70 s at 50 images/s
        clock.now_s += 1
        progress.advance(50, "loss 1.234")
    progress.finish()
    progress.note("head 1/3  loss 1.2")
    assert stream.getvalue().splitlines() == [
        "head 1/3  1,500/12,000 images, 50 images/s, 03:30 left, loss 1.234",
        "head 1/3  3,000/12,000 images, 50 images/s, 03:00 left, loss 1.234",
        "head 1/3  loss 1.2",
    ]


def test_the_speed_is_that_since_the_last_line() -> None:
    """The first step compiles: it must not spoil the estimate for the whole epoch."""
    stream, clock = io.StringIO(), Clock()
    progress = ConsoleProgress(stream, clock)
    progress.start("full 1/8", 1_000_000)
    clock.now_s += 40
    progress.advance(32)
    clock.now_s += 30
    progress.advance(6000)
    first, second = stream.getvalue().splitlines()
    assert first == "full 1/8  32/1,000,000 images, 0.8 images/s, 347:12:40 left"
    assert second == "full 1/8  6,032/1,000,000 images, 200 images/s, 1:22:50 left"


def test_a_stage_begins_counting_anew_and_may_have_no_total() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = ConsoleProgress(stream, clock)
    progress.start("hashing")
    clock.now_s += 30
    progress.advance(90)
    progress.start("decoding", 60)
    clock.now_s += 29
    progress.advance(29)
    clock.now_s += 1
    progress.advance(1)
    assert stream.getvalue().splitlines() == [
        "hashing  90 images, 3.0 images/s",
        "decoding  30/60 images, 1.0 images/s, 00:30 left",
    ]


def test_a_terminal_gets_a_bar_with_speed_and_time_left() -> None:
    stream = Terminal()
    progress = ConsoleProgress(stream)
    progress.start("head 1/3", 640)
    progress.advance(320, "loss 1.234")
    progress.note("a note")
    progress.advance(320, "loss 1.200")
    progress.finish()
    shown = stream.getvalue()
    assert "head 1/3   0%|" in shown
    assert "0/640 images, ? images/s, ? left" in shown
    assert "a note\n" in shown
    progress.note("behind the bar")
    assert stream.getvalue().endswith("behind the bar\n")
