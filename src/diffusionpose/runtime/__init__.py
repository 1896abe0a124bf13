"""From a picture to poses: detectors that find persons, the estimator, drawing."""
