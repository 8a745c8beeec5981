"""Stored label values of the urban data sets."""

# Cityscapes' labelIds, which GTA V's palette indices follow, to its 19 train ids; the rest of
# the ids from 0 to 34 is ignored. (cityscapesScripts, helpers/labels.py)
_TRAINED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CITYSCAPES_TRAIN_IDS = {
    value: _TRAINED.index(value) if value in _TRAINED else 255 for value in range(35)
}
