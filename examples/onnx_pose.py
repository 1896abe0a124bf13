"""Keypoints of a person by an exported model, with neither PyTorch nor the diffusionpose package.

    diffusionpose export --flip --output model.onnx
    pip install numpy opencv-python-headless onnxruntime
    python examples/onnx_pose.py model.onnx photo.jpg 120 40 380 700    # box: x0 y0 x1 y1

Prints a line for each joint: its name, x and y in pixels of the picture, and its score.
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime


def dark(heatmap, sigma):
    """x, y of the maximum, moved by one Newton step on the log of the smoothed heatmap (DARK)."""
    (h, w), radius = heatmap.shape, int(np.ceil(2.5 * sigma))
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    kernel = cv2.getGaussianKernel(2 * radius + 1, sigma)
    smooth = cv2.sepFilter2D(heatmap, -1, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
    logs = np.log((smooth * (heatmap.max() / max(smooth.max(), 1e-10))).clip(1e-10))
    if 2 <= x < w - 2 and 2 <= y < h - 2:
        v = logs[y - 2 : y + 3, x - 2 : x + 3].astype(float)
        slope = np.array([v[2, 3] - v[2, 1], v[3, 2] - v[1, 2]]) / 2
        xy = (v[3, 3] - v[1, 3] - v[3, 1] + v[1, 1]) / 4
        hessian = np.array(
            [[(v[2, 4] - 2 * v[2, 2] + v[2, 0]) / 4, xy], [xy, (v[4, 2] - 2 * v[2, 2] + v[0, 2]) / 4]]
        )
        if np.linalg.det(hessian) > 1e-8 and hessian[0, 0] < 0:
            return np.array([x, y]) - np.linalg.solve(hessian, slope).clip(-1, 1)
    return np.array([x, y], float)


def estimate(model, picture, box):
    """Joint names, (J, 2) keypoints in pixels of the RGB picture, and (J,) scores, of the person in a box."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["diffusionpose"])
    size = np.array(facts["input_size"], np.float32)
    corners = np.array(box, np.float32).reshape(2, 2)
    (width, height), center, aspect = corners[1] - corners[0], corners.sum(axis=0) / 2, size[0] / size[1]
    region = np.array([max(width, height * aspect), max(height, width / aspect)]) * facts["box_padding"]
    pixels = size - facts["unbiased"]  # the unbiased geometry counts intervals between pixel centres
    zoom = pixels / region
    matrix = np.column_stack([np.diag(zoom), pixels / 2 - zoom * center])
    crop = cv2.warpAffine(picture, matrix, facts["input_size"], flags=cv2.INTER_LINEAR)
    (heatmaps,) = session.run(["heatmaps"], {"images": crop.transpose(2, 0, 1)[None]})
    points = np.array([dark(heatmap, facts["heatmap_sigma"]) for heatmap in heatmaps[0]])
    points *= pixels / (np.array(facts["heatmap_size"]) - facts["unbiased"])  # heatmap -> crop
    return facts["skeleton"]["joints"], (points - pixels / 2) / zoom + center, heatmaps[0].max(axis=(1, 2))


if __name__ == "__main__":
    pixels = cv2.imread(sys.argv[2])[:, :, ::-1]
    for joint, (x, y), score in zip(
        *estimate(sys.argv[1], np.ascontiguousarray(pixels), sys.argv[3:7]), strict=True
    ):
        print(f"{joint} {x:.3f} {y:.3f} {score:.4f}")
