"""Recipes: round trip, defaults, and errors that name the key."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest
import tomllib

from smidgen.runtime.errors import SchemaError
from smidgen.train import DataRecipe, ModelRecipe, ScheduleRecipe, TrainRecipe, recipe_toml
from smidgen.train.models.backbones import BACKBONES, BackboneName
from smidgen.train.recipe import differences


def test_a_recipe_survives_toml_unchanged() -> None:
    recipe = TrainRecipe(
        DataRecipe('a "quoted" \\ folder\n\x7fü', image_size=64, split=(0.5, 0.25, 0.25)),
        ModelRecipe(dropout=0.0),
        ScheduleRecipe(head_learning_rate=1e-5, horizontal_flip=False),
    )
    assert TrainRecipe.from_toml(recipe.to_toml()) == recipe
    assert tomllib.loads(recipe.to_toml())["schedule"]["head_learning_rate"] == 1e-5


def test_every_toml_value_reads_back() -> None:
    mapping = {
        "text": "tab\tnul\x00",
        "yes": True,
        "whole": -3,
        "small": 1e-300,
        "list": ["a", "b"],
        "nothing": [],
        "a key": 1,
        "table": {"x": 1.5, "y": [1, 2]},
    }
    assert tomllib.loads(recipe_toml.dumps(mapping)) == mapping
    assert tomllib.loads(recipe_toml.dumps({"table": {"x": 1}})) == {"table": {"x": 1}}
    with pytest.raises(TypeError, match="no TOML for None"):
        recipe_toml.dumps({"x": None})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[data]\nfolder = "x"\nimage_sise = 64', "did you mean 'image_size'"),
        ("[data]\nimage_size = 64", "data.folder is missing"),
        ('[data]\nfolder = "x"\nimage_size = 16', "data.image_size = 16: allowed 32 to 1024"),
        ('[data]\nfolder = "x"\nimage_size = 64.5', "data.image_size: expected a whole number"),
        ('[data]\nfolder = "x"\nsplit = [50, 20, 20, 10]', "expected three numbers"),
        ('[data]\nfolder = "x"\n[model]\nbackbone = "efficientnet-lite"', "did you mean"),
        (
            '[data]\nfolder = "x"\n[schedule]\nhead_epochs = 0\nfull_epochs = 0',
            "at least one epoch",
        ),
        ('[data]\nfolder = "x"\nseparator = ""', "data.separator is empty"),
        (
            '[data]\nfolder = "x"\nlabels = "file-names"\ngroup_by = "file-names"',
            "a whole class would be one group",
        ),
        (
            '[data]\nfolder = "x"\nlabels = "orientation"\nfit = "stretch"',
            'choose data.fit = "crop"',
        ),
        ('[data]\nfolder = "x"\nlabels = "orientation"', "flips and turns would change the label"),
        (
            '[data]\nfolder = "x"\n[model]\nbackbone = "vgg16"\nensemble = ["vgg16"]',
            "each may be there once",
        ),
        (
            '[data]\nfolder = "x"\n[model]\nensemble = ["vgg16"]\nweights = "a.keras"',
            "one file cannot hold the weights of several",
        ),
        ('[data]\nfolder = "x"\n[schedule]\nema = 1.0', "schedule.ema = 1: allowed 0"),
        ('[data]\nfolder = "x"\n[distillation]\nteacher_share = 2', "allowed 0 to 1"),
        ('[data]\nfolder = "x"\n[shedule]\nhead_epochs = 1', "did you mean 'schedule'"),
        ("[data\n", "not TOML"),
    ],
)
def test_a_wrong_recipe_is_told_in_one_line(text: str, expected: str) -> None:
    with pytest.raises(SchemaError, match=expected.replace("[", r"\[")) as caught:
        TrainRecipe.from_toml(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("split", "shares"),
    [
        ((70, 10, 20), (0.7, 0.1, 0.2)),
        ((0.7, 0.1, 0.2), (0.7, 0.1, 0.2)),
        ((70, 20, 10), (0.7, 0.2, 0.1)),
        ((80, 20), (0.72, 0.08, 0.2)),
        ((3, 1, 1), (0.6, 0.2, 0.2)),
    ],
)
def test_proportions_become_shares(split: tuple[float, ...], shares: tuple[float, ...]) -> None:
    assert DataRecipe("x", split=split).shares == pytest.approx(shares)


def test_differences_name_each_key() -> None:
    old = TrainRecipe(DataRecipe("x"))
    new = TrainRecipe(DataRecipe("x", image_size=64), schedule=ScheduleRecipe(seed=3))
    assert differences(old, old) == ()
    assert differences(old, new) == ("data.image_size: 224 -> 64", "schedule.seed: 0 -> 3")


def test_the_table_names_every_backbone() -> None:
    assert set(BACKBONES) == set(get_args(BackboneName))


def test_the_room_is_light_to_import() -> None:
    heavy = ("keras", "tensorflow", "jax", "PIL", "matplotlib", "tqdm")
    program = (
        "import sys, smidgen.train, smidgen.train.loop, smidgen.train.progress; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (shown.stdout.strip(), shown.stderr) == ("[]", "")
