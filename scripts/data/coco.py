"""Annotations of cluttered scenes in the format of COCO: https://cocodataset.org/#format-data."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

DISTRACTOR = "distractor"
MOST_BOXES = 100  # of an image, for the numbers of annotations


def annotations(
    boxes: Tensor,
    labels: Tensor,
    numbers: Sequence[int],
    files: Sequence[str],
    size: tuple[int, int],
    classes: Sequence[str],
    description: str,
) -> dict[str, Any]:
    """Describe scenes: the object of each by its class, and what is around it as distractors.

    Identities follow from the numbers of the images alone, so that fewer or other images keep theirs.

    Args:
        boxes: (N, n, 4), as in ``Split``.
        labels: (N, n), as in ``Split``.
        numbers: One for every image.
        files: Their names.
        size: Height and width of the images.
        classes: Their names, to which categories 1, 2, ... belong; the next one is that of the distractors.
        description: Of the whole.
    """
    height, width = size
    images = [
        {"id": number, "file_name": file, "width": width, "height": height}
        for number, file in zip(numbers, files, strict=True)
    ]
    described = []
    for number, places, shown in zip(numbers, boxes.tolist(), labels.tolist(), strict=True):
        for position, (box, label) in enumerate(zip(places, shown, strict=True)):
            left, top, across, down = box
            if not across:
                continue
            annotation = {
                "id": MOST_BOXES * number + position,
                "image_id": number,
                "category_id": 1 + label if position == 0 else 1 + len(classes),
                "bbox": box,
                "area": across * down,
                "segmentation": [[left, top, left + across, top, left + across, top + down, left, top + down]],
                "iscrowd": 0,
            }
            described.append(annotation | ({"piece_of": classes[label]} if position else {}))
    categories = [(name, "object") for name in classes] + [(DISTRACTOR, "clutter")]
    return {
        "info": {"description": description},
        "licenses": [],
        "images": images,
        "annotations": described,
        "categories": [
            {"id": number, "name": name, "supercategory": kind}
            for number, (name, kind) in enumerate(categories, start=1)
        ],
    }
