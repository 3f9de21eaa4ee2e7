"""Run by an interpreter with MediaPipe: label texts of pictures, as JSON on stdout.

Arguments: a .tflite file, then square PNG files of the model's own input size.
"""

import json
import sys

import mediapipe
from mediapipe.tasks.python import BaseOptions, vision

model, *pictures = sys.argv[1:]
options = vision.ImageClassifierOptions(
    base_options=BaseOptions(model_asset_path=model), max_results=1
)
answers = []
with vision.ImageClassifier.create_from_options(options) as classifier:
    for picture in pictures:
        found = classifier.classify(mediapipe.Image.create_from_file(picture))
        best = found.classifications[0].categories[0]
        answers.append([best.category_name, best.score])
print(json.dumps(answers))
