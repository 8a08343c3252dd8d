"""How much a training step keeps for its way back: a lower limit of the GPU memory that each stage of a recipe needs.

    python bench/training_memory.py [RECIPE ...]      default: published strong phantom; a minute, and no GPU

Counted on tensors without content (FakeTensorMode): every storage that autograd keeps between forward and backward pass, in
the recipe's 16-bit precision, for the recipe's batch. Weights, their averages and the optimiser's state come on top (20 bytes
a parameter with Adam and averaging: 0.4 GB), and so do the gradients of single layers and the libraries' workspace.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from segmenter.model.network import build_network  # noqa: E402
from train.fit.recipe import Recipe, Stage, load_recipe  # noqa: E402


def kept_bytes(recipe: Recipe, stage: Stage) -> int:
    """Of one batch, beside the weights."""
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        sizes[storage._cdata] = storage.nbytes()
        return tensor

    side = stage.crop or stage.size
    with FakeTensorMode():
        network = build_network(recipe.network).train()
        weights = {one.untyped_storage()._cdata for one in (*network.parameters(), *network.buffers())}
        image = torch.empty(stage.batch, 1, side, side)
        short = torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision != "fp32")
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), short:
            outputs = network(image)
        assert outputs is not None  # the graph lives until here, so no storage is counted twice under one number
    return sum(size for number, size in sizes.items() if number not in weights)


if __name__ == "__main__":
    for name in sys.argv[1:] or ("published", "strong", "phantom"):
        recipe = load_recipe(name)
        for number, stage in enumerate(recipe.stages, 1):
            side, kept = stage.crop or stage.size, kept_bytes(recipe, stage)
            a_film, a_batch = f"{kept / stage.batch / 1e6:.0f} MB each", f"{kept / 1e9:.1f} GB"
            print(f"{name}, stage {number}: {stage.batch} films of {side} px, {a_film}, {a_batch}")
