"""Calibration images: from the training split alone, spread over classes, in a fixed order."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest

from smidgen.export.calibration import choose
from smidgen.export.errors import CalibrationError, SourceError
from smidgen.export.pictures import Picture, pixel_batches, scan_unlabelled
from smidgen.runtime.manifest import Preprocessing

SQUARE = Preprocessing(width=16, height=16)


def pool(count: int) -> list[Picture]:
    """``count`` pictures of three classes, the first class having nine tenths of them."""
    return [
        Picture(f"{n}.png", f"{n * 7919 % 1000:064x}", 0 if n % 10 else 1 + n // 10 % 2)
        for n in range(count)
    ]


def test_choice_is_spread_over_classes_and_independent_of_order():
    pictures = pool(100)
    chosen = choose(pictures, [], 15, SQUARE)
    counts = np.bincount([picture.label for picture in chosen.pictures])
    assert counts.tolist() == [5, 5, 5]
    assert chosen.pictures == choose(pictures[::-1], [], 15, SQUARE).pictures
    hashes = [picture.sha256 for picture in chosen.pictures]
    assert hashes == sorted(hashes)
    assert len(chosen.sha256) == 64
    assert chosen.sha256 != choose(pictures, [], 16, SQUARE).sha256


def test_all_images_where_there_are_fewer_than_asked_for():
    assert len(choose(pool(30), [], 200, SQUARE)) == 30


def test_a_planted_held_out_image_is_refused_by_content():
    pictures = pool(30)
    planted = dataclasses.replace(pictures[7], path="renamed.png", label=2)
    with pytest.raises(CalibrationError, match=r"7\.png is held out"):
        choose(pictures, [planted], 20, SQUARE)


def test_too_few_images_say_what_to_do():
    with pytest.raises(CalibrationError, match=r"at least 10 .* got 3: .*schemes = "):
        choose(pool(3), [], 200, SQUARE)


def test_pixels_touch_both_ends_once(picture_folder):
    pictures = scan_unlabelled(picture_folder)[:20]
    tensors = list(choose(pictures, [], 12, SQUARE).pixels())
    assert {tensor.shape for tensor in tensors} == {(1, 16, 16, 3)}
    assert tensors[0][0, 0, 0].tolist() == [0, 0, 0]
    assert tensors[0][0, -1, -1].tolist() == [255, 255, 255]
    assert len(tensors) == 12


def test_a_changed_file_is_refused(tmp_path, picture_folder):
    pictures = scan_unlabelled(picture_folder)
    changed = tmp_path / "changed.png"
    changed.write_bytes(pictures[1].read())
    with pytest.raises(SourceError, match="is not the image it was"):
        dataclasses.replace(pictures[0], path=str(changed)).read()
    with pytest.raises(SourceError, match="cannot read"):
        dataclasses.replace(pictures[0], path=str(tmp_path / "gone.png")).read()


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(SourceError, match="no image under"):
        scan_unlabelled(tmp_path)
    with pytest.raises(SourceError, match="is not a folder"):
        scan_unlabelled(tmp_path / "nowhere")


def test_what_is_not_a_picture_is_named(tmp_path, picture_folder):
    for number, picture in enumerate(scan_unlabelled(picture_folder)[:3]):
        (tmp_path / f"{number}.png").write_bytes(picture.read())
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    pictures = scan_unlabelled(tmp_path)
    assert len(pictures) == 3
    assert next(pixel_batches(pictures, SQUARE, 3)).shape == (3, 16, 16, 3)
    cut = tmp_path / "cut.png"
    cut.write_bytes(pictures[0].read()[:60])
    with pytest.raises(SourceError, match=r"/cut\.png cannot be used \(.*truncated or corrupt"):
        next(pixel_batches(scan_unlabelled(tmp_path), SQUARE, 4))
    cut.unlink()
    cut.symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(SourceError, match=r"cannot read .*/cut\.png \(No such file"):
        scan_unlabelled(tmp_path)
