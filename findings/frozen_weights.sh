#!/usr/bin/env bash
# Expected: whether weights require gradients matters to the backward pass only. Under no_grad a network with frozen weights
#   gives the same bits as before.
# What happens: torch's matmul asks the weight's requires_grad, grad mode or not. For tokens in a permuted layout (channels moved to
#   the end, as EdgeNeXt, Swin-like and many vision blocks do) nn.Linear copies them and calls mm where the weight requires
#   gradients, and calls bmm on the expanded weight where it is frozen. The two routines add in different orders.
#   On this CPU the results differ for 9 outputs or fewer, such as a low-rank adapter's first factor, and more than one image.
# Seen with torch 2.13.0 (CPU), one thread, 192 channels to rank 8: ['clone', 'mm'] against ['bmm'], outputs differ by 1e-6.
# Why it matters: an adapted network that is frozen for deployment gives other embeddings than in the notebook that trained it,
#   with the same weights; golden files and caches by output break although nothing has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q torch==2.13.0 numpy==2.4.6
OMP_NUM_THREADS=1 "$work/env/bin/python" - <<'PYTHON'
import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Log(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.ops.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


torch.set_num_threads(1)
torch.manual_seed(0)
feature_map = torch.randn(2, 192, 14, 14)
tokens = feature_map.flatten(2).permute(0, 2, 1)  # (N, cells, channels), as it lies in memory
layer = torch.nn.Linear(192, 8, bias=False)
outputs, routines = [], []
for frozen in (False, True):
    layer.requires_grad_(not frozen)
    with torch.no_grad(), Log() as log:
        log.ops = []
        outputs.append(layer(tokens))
    routines.append([op for op in log.ops if op in ("clone", "mm", "bmm", "addmm")])
print("trainable:", routines[0], " frozen:", routines[1])
print("equal:", torch.equal(*outputs), " largest difference:", f"{(outputs[0] - outputs[1]).abs().max():.0e}")
assert "mm" in routines[0] and "bmm" in routines[1], "torch takes one routine for both now"
assert not torch.equal(*outputs), "both routines give the same bits now"
PYTHON
