"""A face network with the facts that explaining it needs: its input, its output, its layers, its head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Literal, final
from weakref import WeakMethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facexai._errors import short_repr
from facexai._html import words
from facexai.hooks import eval_scope, no_graph, unwrapped
from facexai.input_spec import InputSpec
from facexai.models._factory import call_factory
from facexai.models._given_layouts import Layouts, check_layouts
from facexai.models._model_words import in_words
from facexai.models._validation import ForwardKwargs, Output, bound, check_classes, check_device, check_options, digest
from facexai.models.blackbox import BlackBox, Space, seen_by
from facexai.models.engines import precision_of
from facexai.models.fingerprint import fingerprint, recipe_hash
from facexai.models.flip import Flip, both, joined, merged, split
from facexai.models.heads import Head, HeadDoesNotFold
from facexai.models.outputs import Take, forward, named
from facexai.models.structure import Structure, layer_named, look, same_objects

if TYPE_CHECKING:
    import numpy as np

    from facexai.images import AlignMode, FaceChoice
    from facexai.models.enroll import People
    from facexai.models.gallery import Gallery


@final
class FaceModel:
    """Any torch face network, unchanged, with its input specification.

    Args:
        net: an ``nn.Module`` that maps a batch of images to embeddings or logits; may be wrapped in DataParallel.
        spec: an :class:`InputSpec` or the name of a preset.
        take: which part of a tuple, list or dict output: index, key or function. None takes the first tensor and
            says so in a warning.
        output: ``"embedding"`` or ``"logits"``; ``"auto"`` means an embedding, unless a dict key named
            ``"logits"`` was taken.
        flip: ``"sum"`` adds the output for the mirrored image, ``"concat"`` appends it, as test protocols of
            face recognition do. Maps follow: the mirrored branch's map is mirrored back and added.
        center: (D,), a mean embedding to subtract from the network's output before normalising.
        names: class names of a network that gives logits.
        forward_kwargs: other arguments of the network's forward, by name, such as keypoints: tensors hold one row for
            all images, or one for each of the images that are explained, which masked copies then share.
        layouts: {layer: function}, for layers whose tensors are not recognised: a function takes the tensor and returns
            its map (N, C, h, w), as ``reshape_transform`` does elsewhere; it may only select and re-arrange values.

    Raises:
        TypeError, ValueError: ``net`` is no module; unknown preset, option or layer.

    Images given to it are RGB in [0, 1] at the spec's size, (N, 3, H, W), on the network's device. Every call runs
    in eval mode and restores the mode of each submodule.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 8))
    >>> model = FaceModel(net, InputSpec(16))
    >>> model.embed(torch.rand(2, 3, 16, 16)).shape
    torch.Size([2, 8])
    """

    net: Final[nn.Module]
    spec: Final[InputSpec]
    take: Final[Take | None]
    output: Final[Output]
    flip: Final[Flip]
    center: Final[Tensor | None]
    names: Final[tuple[str, ...] | None]
    forward_kwargs: Final[ForwardKwargs]
    layouts: Final[Layouts]

    def __init__(
        self,
        net: nn.Module,
        spec: InputSpec | str = "arcface",
        *,
        take: Take | None = None,
        output: Output = "auto",
        flip: Flip = None,
        center: Tensor | None = None,
        names: Sequence[str] | None = None,
        forward_kwargs: ForwardKwargs = None,
        layouts: Layouts = None,
        source: str | None = None,
    ) -> None:
        check_options(net, output, flip, center, names, forward_kwargs)
        check_layouts(layouts, dict(net.named_modules()))
        self.net, self.spec = net, InputSpec.of(spec)
        self.take, self.output, self.flip, self.center = take, output, flip, center
        self.names, self.forward_kwargs = None if names is None else tuple(names), forward_kwargs
        self.layouts, self._source = None if layouts is None else dict(layouts), source
        self._took: Take | None = None
        self._looked: tuple[tuple[nn.Module, ...], torch.device, Structure] | None = None

    def __setattr__(self, name: str, value: object) -> None:
        if name in FaceModel.__annotations__ and name in self.__dict__:
            raise AttributeError(f"{name!r} of a FaceModel is fixed; make another: FaceModel(net, spec, {name}=...)")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name!r} of a FaceModel is fixed; make another FaceModel")

    @classmethod
    def from_source(cls, source: str) -> FaceModel:
        """Returns the model that ``"package.module:factory"`` returns; such a model can be pickled by that name.

        Args:
            source: keyword arguments of the factory follow as a JSON object: ``package.module:factory?{"depth": 50}``.

        Raises:
            ValueError: the source is not of that form, or cannot be imported, or has no such function.
            TypeError: the function returns something else.
        """
        model = call_factory(source)
        if not isinstance(model, FaceModel):
            raise TypeError(
                f"{short_repr(source)} returned a {type(model).__name__}, expected a facexai.FaceModel around the "
                "network"
            )
        model._source = source
        return model

    @property
    def source(self) -> str | None:
        """Returns ``"package.module:factory"``, by which the model pickles; None if no factory made it."""
        return self._source

    @classmethod
    def from_callable(
        cls,
        function: Callable[[np.ndarray], Any],
        spec: InputSpec | str = "arcface",
        *,
        space: Space = "input",
        batch_size: int | None = None,
        fixed: bool = False,
        name: str | None = None,
        **options: Any,
    ) -> FaceModel:
        """Wraps a black box: a function from images to embeddings or logits, such as an ONNX session.

        It can be run but not inspected: galleries, metrics and methods that only change pixels work; methods that need
        layers or gradients refuse.

        Args:
            function: takes one NumPy array, a batch; returns (N, D), or a tuple or dict that holds it.
            spec: as for FaceModel; with another space than ``"input"`` only its size and crop count.
            space: ``"input"``: float32 (N, 3, H, W) or (N, 1, H, W) as the spec prepares it, as ONNX networks expect
                it; ``"rgb01"``, ``"bgr01"``, ``"grey01"``: the same in [0, 1]; ``"rgb_uint8"``, ``"bgr_uint8"``: (N, H,
                W, 3) rounded to 0..255, as OpenCV has photos; ``"grey_uint8"``: (N, H, W).
            batch_size: most images in one call of the function; None: as they come.
            fixed: the function takes exactly ``batch_size`` images: the last batch is filled up, those rows dropped.
            name: of the model and its version, for results: its weights cannot be hashed. Default: the function's.
            options: ``take``, ``output``, ``flip``, ``center``, ``names`` and ``source`` of FaceModel.

        Raises:
            TypeError: no function. ValueError: unknown space or option; on use, whatever the function raised, noted.

        >>> import numpy as np
        >>> model = FaceModel.from_callable(lambda faces: faces.mean((1, 2)), InputSpec(8), space="bgr_uint8")
        >>> model.embed(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 3])
        """
        return cls(BlackBox(function, space, batch_size, name, fixed), seen_by(space, InputSpec.of(spec)), **options)

    def __repr__(self) -> str:
        return in_words(self)

    _repr_html_ = words

    def __reduce__(self) -> tuple[Any, ...]:
        if self._source is None:
            raise TypeError(
                "this FaceModel wraps a network built by hand and does not pickle; "
                "use zoo.load(name) or FaceModel.from_source('package.module:factory')"
            )
        return FaceModel.from_source, (self._source,)

    # ---- what it is -------------------------------------------------------------------------------------------

    @property
    def model(self) -> FaceModel:
        """Returns the model itself, so that a network that gives logits is a white-box classifier."""
        return self

    @property
    def core(self) -> nn.Module:
        """Returns the network without a wrapper of DataParallel or ``torch.compile``."""
        return unwrapped(self.net)

    @property
    def took(self) -> Take | None:
        """Returns the element taken from a tuple or dict output; None for a tensor, or before the first call."""
        return self.take if self.take is not None else self._took

    @property
    def device(self) -> torch.device:
        """Returns where the network is, and where images have to be."""
        return next((t.device for t in self._tensors()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """Returns the floating type of the network; images are cast to it."""
        return next((t.dtype for t in self._tensors() if t.is_floating_point()), torch.get_default_dtype())

    def _tensors(self) -> Iterator[Tensor]:
        return chain(self.net.parameters(), self.net.buffers())

    @property
    def fingerprint(self) -> str:
        """Returns sixteen hexadecimal digits of weights, precision, input specification, flip, centre and layouts."""
        recipe = f"{fingerprint(self.core)}|{self.spec!r}|{self.flip}|{named(self.take)}|".encode()
        recipe += precision_of(self.core).encode()  # engines in float32 agree within rounding, as machines do
        given = {name: self.structure.layers[name].places for name in self.layouts or ()}
        return recipe_hash(recipe, self.center, digest(self.forward_kwargs) + digest(given or None))

    @property
    def gives_logits(self) -> bool:
        """Returns whether the output is taken for class logits."""
        return self.output == "logits" or (self.output == "auto" and self.took == "logits")

    # ---- running it -------------------------------------------------------------------------------------------

    def outputs(self, images: Tensor, index: Tensor | None = None, *, in_range: bool = True) -> Tensor:
        """Returns the network's output, (B*N, D): B = 2 with ``flip``, mirrored branch last. Keeps the grad mode.

        Args:
            images: (N, 3, H, W) RGB in [0, 1].
            index: (N,), whose rows of ``forward_kwargs`` each image takes; None: its own.
            in_range: False: values outside of [0, 1] are taken too, as filtered images have them.

        Raises:
            TypeError, ValueError: bad images (see :meth:`InputSpec.check`), wrong device, NaN in the output.
        """
        check_device(images, self.device)
        x = self.spec.prepare(images, in_range=in_range).to(self.dtype)
        x = x.clone() if x.is_inference() else x
        if isinstance(self.core, BlackBox):
            self.core.check(x)
        kwargs = bound(self.forward_kwargs, len(x), index, x.device)
        with eval_scope(self.net):
            x, other = both(x, self.flip), lambda: self.spec.prepare(self.noise(1, seed=2)).to(self.dtype)
            rows, took = forward(self.core, x, self.took, self.spec, kwargs, len(images), other)
        if took is not self._took:
            self._took = took
        return rows

    def features(self, outputs: Tensor) -> Tensor:
        """Centres outputs (B*N, D) and, with ``flip``, sums or concatenates branches: (N, D'). Differentiable."""
        if outputs.dtype not in (torch.float32, torch.float64):
            outputs = outputs.float()
        if self.center is not None:
            if self.center.shape[-1] != outputs.shape[-1]:
                raise ValueError(f"center has {self.center.shape[-1]} numbers, the embedding {outputs.shape[-1]}")
            outputs = outputs - self.center.to(outputs)
        if self.flip == "concat" and self.gives_logits:
            raise ValueError("logits of two branches do not concatenate; flip='sum', or take= the embedding")
        return joined(outputs, self.flip)

    def branch_directions(self, directions: Tensor) -> Tensor:
        """Returns directions in feature space (N, K, D') as directions of the network's outputs (B*N, K, D)."""
        return split(directions, self.flip)

    def merge(self, maps: Tensor) -> Tensor:
        """Adds the maps of all branches (B*N, ..., w), mirrored ones mirrored back: (N, ..., w)."""
        return merged(maps, self.flip)

    def embed(self, images: Tensor, batch_size: int = 64) -> Tensor:
        """Returns unit embeddings.

        Args:
            images: (N, 3, H, W) RGB in [0, 1].
            batch_size: images per forward pass.

        Returns:
            (N, D'), rows of length 1 (a zero embedding stays zero), float32 or float64.
        """
        self.spec.check(images)
        bound(self.forward_kwargs, len(images), None, images.device)  # a row for each, or one for all
        with no_graph():
            parts = zip(*(torch.split(x, batch_size) for x in (images, torch.arange(len(images)))), strict=True)
            features = torch.cat([self.features(self.outputs(part, index)) for part, index in parts])
        if self.gives_logits:
            raise ValueError("this network gives logits, not embeddings; choose its embedding with take=")
        return F.normalize(features)

    def logits(self, images: Tensor) -> Tensor:
        """Returns class logits (N, C) of a network that gives them.

        Raises:
            ValueError: the network gives embeddings.
        """
        with no_graph():
            features = self.features(self.outputs(images))
        return self.score(features)

    def score(self, features: Tensor, targets: Tensor | None = None, detach_norm: bool = True) -> Tensor:
        """Returns logits as they are, (N, C), or those of targets (N, K); see :class:`~facexai.models.WhiteBox`."""
        check_classes(features.shape[1], self.names, logits=self.gives_logits)
        return features if targets is None else features.gather(1, targets)

    def directions(self, features: Tensor, targets: Tensor) -> Tensor:
        """Returns one-hot rows (N, K, C); see :class:`~facexai.models.WhiteBox`."""
        return F.one_hot(targets, features.shape[1]).to(features)

    # ---- looking into it --------------------------------------------------------------------------------------

    @property
    def structure(self) -> Structure:
        """Returns layers and head as found by a forward pass, which is repeated when a module was exchanged."""
        modules, device = tuple(self.net.modules()), self.device
        known = self._looked
        if known is None or known[1] != device or not same_objects(known[0], modules):
            looked = look(self.net, self.core, WeakMethod(self._tried), self.noise(), self.layouts)
            known = self._looked = modules, device, looked
        return known[2]

    def _tried(self, images: Tensor) -> Tensor:
        """Returns outputs for noise images, with the first row of ``forward_kwargs``."""
        return self.outputs(images, torch.zeros(len(images), dtype=torch.long))

    def noise(self, count: int = 2, seed: int = 0) -> Tensor:
        """Returns images (count, 3, H, W) of uniform noise, always the same: what a network is tried with."""
        drawn = torch.rand(count, 3, *self.spec.height_width, generator=torch.Generator().manual_seed(seed))
        return drawn.to(self.device)

    @property
    def head(self) -> Head:
        """Returns the affine head, from the last spatial map to the output.

        Raises:
            HeadDoesNotFold: the end of the network is not affine, with the place where it stops to be.
        """
        head = self.structure.head
        if isinstance(head, HeadDoesNotFold):
            raise HeadDoesNotFold(*head.args)
        return head

    @property
    def layers(self) -> dict[str, tuple[int, int, int]]:
        """Returns the layers that run once and give a map, in the order of running: name -> (channels, h, w)."""
        return {name: layout.shape for name, layout in self.structure.layers.items()}

    def layer(self, name: str) -> str:
        """Returns the layer of that name; ``"auto"``: the deepest of 14x14 locations, else 7x7, that decides alone.

        Warns if ``"auto"`` is a layer before the network mixes locations, since no later one could be read.

        Raises:
            ValueError: no such layer, or no map of that size.
        """
        return self.structure.auto() if name == "auto" else layer_named(self.net, name, self.layers)

    # ---- people -----------------------------------------------------------------------------------------------

    def gallery(
        self,
        people: People,
        *,
        scale: float | Literal["calibrated"] = 64.0,
        center: Literal["enrolled"] | Tensor | None = None,
        names: Sequence[str] | None = None,
        align: AlignMode = "never",
        face: FaceChoice = "only",
        batch_size: int = 64,
        progress: bool = False,
    ) -> Gallery:
        """Enrols people as a classifier: a person's logit is ``scale * cosine`` to the person's template.

        Args:
            people: {name: images (n, 3, H, W) or embeddings (n, D) or photo paths}, or a folder ``NAME/*.jpg``; or the
                class weights (C, D) or (D, C) of a trained head, whose margin counts in training only.
            scale: logits per unit of cosine; ``"calibrated"``: the one under which left-out enrolment photos are most
                probable (at least one person with two photos). 64, the convention, saturates probabilities.
            center: ``"enrolled"`` subtracts the mean over the enrolled people (at least ten) from unit
                embeddings; a tensor (D,) subtracts that.
            names: C class names for class weights; default: their numbers.
            align: detect and align the face in photos given by path: ``"never"`` (they must have the spec's size),
                ``"auto"`` (those of another size) or ``"always"``.
            face: which face where a photo shows several: ``"only"`` refuses, ``"largest"``, or an index.
            batch_size: images per forward pass.
            progress: show a progress bar.

        Raises:
            ValueError, TypeError: no one enrolled, a person without photos, zero or non-finite embedding,
                sizes that differ.
            FileNotFoundError: no such folder.
        """
        from facexai.models.enroll import PhotoOptions, enrol

        how = PhotoOptions(align=align, face=face, batch_size=batch_size, progress=progress, names=names)
        return enrol(self, people, scale=scale, center=center, how=how)
