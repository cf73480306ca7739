#!/usr/bin/env bash
# Expected: the map of a layer does not depend on whether the ReLU behind it works in place: the network's output does not.
# What happens: on a CPU grad-cam keeps the layer's output without a copy (`activation.cpu().detach()`), ReLU(inplace=True)
#   overwrites it, and the map is made of gradients before the ReLU and activations behind it. No warning. (Of a GPU's
#   tensor `.cpu()` is a copy, so the same lines have to give another map there; not tried.)
# Seen: grad-cam 1.5.7 with torch 2.13.0: Grad-CAM of a batch norm before ReLU(inplace=True) differs by 1.0 of [0, 1] from
#   that of the same network with ReLU(inplace=False), whose output is equal bit by bit.
# Why it matters: conv, norm, ReLU(inplace=True) is how ResNets, and face networks made of them, are written, and a norm or
#   a convolution is a natural layer to explain. Name a layer behind the ReLU, or copy the network with inplace=False.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q torch==2.13.0 torchvision==0.28.0 grad-cam==1.5.7 setuptools
"$work/env/bin/python" - <<'PYTHON'
import copy
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

extension = next(Path(find_spec("torchvision").origin).parent.glob("_C*.so"))
try:
    torch.ops.load_library(str(extension))
except OSError:  # beside the CPU build of torch; grad-cam calls none of these operators
    library = torch.library.Library("torchvision", "FRAGMENT")
    names = ["roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d"]
    for name in ["nms", "qnms", "qroi_align", *names, *(f"_{name}_backward" for name in names)]:
        library.define(f"{name}(Tensor x) -> Tensor")

from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

torch.manual_seed(0)
relu = nn.ReLU(inplace=True)
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), relu, nn.Flatten(), nn.Linear(288, 4)).eval()
other = copy.deepcopy(net)
other[2].inplace = False
x = torch.rand(1, 3, 8, 8)
assert torch.equal(net(x), other(x))
first, second = (GradCAM(n, [n[1]])(x, [ClassifierOutputTarget(1)]) for n in (net, other))
apart = float(abs(first - second).max())
print(f"maps of one layer of one network, in place and not: {apart:.3f} apart")
assert apart > 0.1
PYTHON
