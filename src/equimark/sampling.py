"""From images to the batches of a run: which images a step takes, with whom they are paired, how they are warped.

All randomness is a function of (seed, source of randomness, step, process): any step's batch can be made again
without those before it, and no generator's state has to be kept. What is drawn for a batch is drawn for all of it in
every process, so that several processes see the parts of the batch that one would see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from . import geometry
from .config import ConfigError, RunConfig
from .feed import Rows, open_feed
from .objectives import next_in_batch
from .packs import PackedImages
from .pairs import PairBatch, Part, change_photometry, draw_warps, make_pairs
from .processes import ALONE, Processes
from .shards import MIXED

Stream = Literal[
    "weights", "order", "warps", "photometric", "partners", "auxiliaries", "pool", "pool-warps", "pool-photometric"
]
_STREAMS: tuple[Stream, ...] = get_args(Stream)


def generator(
    seed: int, stream: Stream, step: int = 0, *, process: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """The generator of one source of randomness at one step."""
    key = np.random.SeedSequence([seed, _STREAMS.index(stream), step, process])
    return torch.Generator(device).manual_seed(int(key.generate_state(1, np.uint64)[0] >> 1))


@dataclass(frozen=True)
class LabelledBatch:
    """Warped views of labelled images.

    Args:
        images: (B, 3, h, w) in [0, 1].
        points: (B, K, 2) in pixels of the views, NaN where not visible; if the images have points.
        parts: (B, h, w) label of every pixel; if the images have parts.
    """

    images: Tensor
    points: Tensor | None
    parts: Tensor | None

    def __len__(self) -> int:
        return len(self.images)


Batch = PairBatch | LabelledBatch


class Order:
    """An endless sequence of things, of which every one comes before any comes again.

    Without ``classes`` it is one seeded permutation after another. With them each permutation spreads the members of
    a class evenly, so that any part of it has the share of each class that all things have; or, ``balanced``, the
    classes take turns, each with permutations of its own.

    With ``shards`` the things of a few shards, chosen at random, are shuffled among themselves, then those of the next
    few: things that follow one another lie in few shards. Where the shards are no more than these few, the order is
    the same as without.

    Args:
        count: of things.
        seed: of the permutations.
        stream: of the randomness.
        classes: (count,) from 0.
        balanced: let classes take turns.
        shards: (count,) from 0, in which each thing lies.
        expect: told the things that will be taken in a while, about half of what is shuffled at a time later.
    """

    def __init__(
        self,
        count: int,
        *,
        seed: int,
        stream: Stream,
        classes: Rows | None = None,
        balanced: bool = False,
        shards: Rows | None = None,
        expect: Callable[[Rows], None] | None = None,
    ) -> None:
        self._count, self._seed, self._stream = count, seed, stream
        self._classes, self._balanced = classes, balanced
        kinds = 1 if classes is None else int(classes.max()) + 1
        self._shards, self._expect, self._mixed = shards, expect, max(1, MIXED // kinds)
        self._ahead = 0 if shards is None else count * MIXED // (2 * int(shards.max() + 1))
        self._kept: dict[tuple[int, int], Rows] = {}
        self._members: dict[int, Rows] = {}

    def take(self, start: int, count: int) -> Rows:
        """The things (count,) from place ``start`` on."""
        pick = self._by_turns if self._balanced else self._in_turn
        if self._expect and self._shards is not None:
            later = range(start + self._ahead, start + self._ahead + count)
            self._expect(np.array([pick(place) for place in later], np.int64))
        return np.array([pick(place) for place in range(start, start + count)], np.int64)

    def _in_turn(self, place: int) -> int:
        epoch, place = divmod(place, self._count)
        return int(self._permutation(self._count, epoch, classes=self._classes)[place])

    def _by_turns(self, place: int) -> int:
        assert self._classes is not None
        kinds = int(self._classes.max()) + 1
        turn, place = divmod(place, kinds)
        kind = int(self._permutation(kinds, turn, part=1)[place])
        members = self._find_members(kind)
        epoch, place = divmod(turn, len(members))
        return int(members[self._permutation(len(members), epoch, part=2 + kind, things=members)[place]])

    def _find_members(self, kind: int) -> Rows:
        if kind not in self._members:
            self._members[kind] = np.flatnonzero(self._classes == kind)
        return self._members[kind]

    def _permutation(
        self, count: int, epoch: int, *, part: int = 0, classes: Rows | None = None, things: Rows | None = None
    ) -> Rows:
        """The permutation of ``count`` things (of ``things``) in an epoch; those of the latest epochs are kept."""
        if (part, epoch) not in self._kept:
            self._kept.pop((part, epoch - 2), None)
            order = generator(self._seed, self._stream, epoch, process=part)
            shuffled = torch.randperm(count, generator=order).numpy()
            if self._shards is not None and part != 1:  # 1: of classes, which lie nowhere
                own = self._shards if things is None else self._shards[things]
                shuffled = _by_shards(shuffled, own, self._mixed, order)
            self._kept[part, epoch] = shuffled if classes is None else _spread(shuffled, classes, order)
        return self._kept[part, epoch]


def _by_shards(shuffled: Rows, shards: Rows, mixed: int, order: torch.Generator) -> Rows:
    """The permutation ``shuffled`` rearranged so that the things of ``mixed`` shards come before those of others."""
    _, shards = np.unique(shards, return_inverse=True)
    turns = torch.randperm(int(shards.max()) + 1, generator=order).numpy() // mixed
    return shuffled[np.argsort(turns[shards[shuffled]], kind="stable")]


def _spread(shuffled: Rows, classes: Rows, order: torch.Generator) -> Rows:
    """The permutation ``shuffled`` rearranged so that the members of each class lie at equal distances."""
    offsets = torch.rand(int(classes.max()) + 1, generator=order, dtype=torch.float64).numpy()
    kinds, places = classes[shuffled], np.empty(len(shuffled))
    for kind, offset in enumerate(offsets):
        own = kinds == kind
        places[own] = (np.arange(own.sum()) + offset) / max(1, own.sum())
    return shuffled[np.argsort(places, kind="stable")]


class Sampler:
    """The batches of a run.

    Args:
        images: to draw from.
        config: of the run.
        device: on which views are made.
        processes: which share each batch equally; this one reads the images of its parts alone.
        micro_batches: into which each batch is cut, and each of these among the processes.

    Raises:
        ConfigError: if the images lack what ``config`` needs: folders, neighbours, flow.
    """

    def __init__(
        self,
        images: PackedImages,
        config: RunConfig,
        device: torch.device | str = "cpu",
        *,
        processes: Processes = ALONE,
        micro_batches: int = 1,
    ) -> None:
        self.images = images
        self.config = config
        self.device = torch.device(device)
        self.processes = processes
        self.micro_batches = micro_batches
        self.sources = find_sources(images, config)
        self._feed = open_feed(images, self.device)
        self._order = self._make_order(self.sources, "order")
        self._pool_order = self._make_order(np.arange(len(images)), "pool")

    def _make_order(self, rows: Rows, stream: Stream) -> Order:
        sampling, seed = self.config.sampling, self.config.seed
        classes = None if sampling == "shuffled" else _find_classes(self.images, rows)
        shards = self.images.shard_of(rows)
        return Order(
            len(rows),
            seed=seed,
            stream=stream,
            classes=classes,
            balanced=sampling == "balanced",
            shards=shards,
            expect=lambda places: self.images.expect(rows[places]),
        )

    def rows(self, step: int) -> Rows:
        """Images (B,) of the batch of ``step`` (from 1), over all processes."""
        size = self.config.batch_size
        return self.sources[self._order.take((step - 1) * size, size)]

    def batch(self, step: int, micro: int = 0) -> Batch:
        """This process's part of a micro-batch of ``step`` (from 1): pairs, or labelled views for a supervised run."""
        rows, part = self.rows(step), self._part(self.config.batch_size, micro)
        if self.config.is_supervised:
            made: Batch = self._labelled(rows, step, part)
        else:
            pairs = self._pairs(rows, step, part)
            made = self._with_auxiliaries(pairs, step, micro) if self.config.method == "dve" else pairs
        last = micro == self.micro_batches - 1
        self._feed.expect(self._looked_at(step + last, 0 if last else micro + 1))
        return made

    def _looked_at(self, step: int, micro: int) -> Iterator[Rows]:
        """Images of which :meth:`batch` needs the frames, as it asks for them."""
        spec, rows, part = self.config, self.rows(step), self._part(self.config.batch_size, micro)
        yield rows[part.rows]
        if not spec.is_supervised and spec.pairs.partner != "itself":
            yield self._partners(rows, step)[part.rows]
        if spec.method == "dve" and spec.objective.pool:
            part = self._part(spec.objective.pool, micro)
            yield self._pool_rows(step, part)[part.rows]

    def _part(self, count: int, micro: int) -> Part:
        """What this process sees, in a micro-batch, of ``count`` things."""
        size = count // (self.micro_batches * self.processes.count)
        start = (micro * self.processes.count + self.processes.own) * size
        return Part(start, start + size, count)

    def _pairs(self, rows: Rows, step: int, part: Part) -> PairBatch:
        spec, seed = self.config.pairs, self.config.seed
        return make_pairs(
            self._feed(rows[part.rows]),
            spec,
            warp_generator=generator(seed, "warps", step, device=self.device),
            photometric_generator=generator(seed, "photometric", step, device=self.device),
            partners=None if spec.partner == "itself" else self._feed(self._partners(rows, step)[part.rows]),
            flow=self._flow(rows[part.rows]) if spec.motion == "flow" else None,
            part=part,
        )

    def _pool(self, step: int, part: Part) -> Tensor:
        """Views (P, 3, h, w) of further images, warped like the sources of pairs."""
        seed = self.config.seed
        return make_pairs(
            self._feed(self._pool_rows(step, part)[part.rows]),
            self.config.pairs,
            warp_generator=generator(seed, "pool-warps", step, device=self.device),
            photometric_generator=generator(seed, "pool-photometric", step, device=self.device),
            part=part,
        ).source

    def _pool_rows(self, step: int, part: Part) -> Rows:
        return self._pool_order.take((step - 1) * part.count, part.count)

    def _with_auxiliaries(self, pairs: PairBatch, step: int, micro: int) -> PairBatch:
        """The pairs with their auxiliaries: indices into what all processes see in the micro-batch, or this one."""
        spec, processes = self.config.objective, self.processes
        sharing = 1 if spec.auxiliaries_from == "process" else processes.count
        group, place = divmod(micro * processes.count + processes.own, sharing)
        pool = self._pool(step, self._part(spec.pool, micro)) if spec.pool else None
        chosen = choose_auxiliaries(
            len(pairs) * sharing,
            spec.auxiliaries,
            pool=0 if pool is None else len(pool) * sharing,
            generator=generator(self.config.seed, "auxiliaries", step, process=group),
        )
        return replace(pairs, pool=pool, auxiliaries=chosen.chunk(sharing)[place].to(self.device))

    def _flow(self, rows: Rows) -> Tensor:
        """Displacements (B, 2, S, S) from images to their partners, NaN where unknown."""
        assert self.images.flow is not None
        flow = torch.from_numpy(self.images.flow[rows].astype(np.float32)).movedim(-1, 1).to(self.device)
        return 0 * flow if self.config.pairs.partner == "itself" else flow

    def _partners(self, rows: Rows, step: int) -> Rows:
        spec = self.config.pairs
        if spec.partner == "next":
            return rows + spec.gap
        draws = torch.rand(len(rows), generator=generator(self.config.seed, "partners", step)).numpy()
        return np.array([self._other(row, draw) for row, draw in zip(rows, draws, strict=True)], np.int64)

    def _other(self, row: int, draw: float) -> int:
        """Another image of the same folder, by a number in [0, 1)."""
        members = self._members[self.images.folders[row]]
        place = members.index(row)
        return members[(place + 1 + int(draw * (len(members) - 1))) % len(members)]

    @cached_property
    def _members(self) -> dict[str, list[int]]:
        members: dict[str, list[int]] = {}
        for row, folder in enumerate(self.images.folders):
            members.setdefault(folder, []).append(row)
        return members

    def _labelled(self, rows: Rows, step: int, part: Part) -> LabelledBatch:
        rows = rows[part.rows]
        seed, frames = self.config.seed, self._feed(rows).float() / 255
        warps = generator(seed, "warps", step, device=self.device)
        drawn = draw_warps(self.config.pairs, part.count, frames.shape[-1], generator=warps)[part.rows]
        seen = drawn.source_positions()
        views = geometry.sample(frames, seen)
        photometric = generator(seed, "photometric", step, device=self.device)
        views = change_photometry(views, self.config.pairs.photometric, generator=photometric, part=part)
        points, parts = self.images.points, self.images.parts
        return LabelledBatch(
            views,
            None if points is None else drawn.move_to_source(torch.from_numpy(points[rows]).float().to(self.device)),
            None if parts is None else _show_parts(torch.from_numpy(parts[rows]).to(self.device), seen),
        )


def _show_parts(parts: Tensor, seen: Tensor) -> Tensor:
    """Labels (B, h, w) that views show of ``parts`` (B, S, S), looking at frame pixels ``seen`` (B, h, w, 2)."""
    return geometry.sample_nearest(parts[:, None], seen)[:, 0].long()


def choose_auxiliaries(
    count: int, auxiliaries: int | Literal["all"], *, pool: int = 0, generator: torch.Generator
) -> Tensor:
    """Indices (B, A) of the auxiliary images of ``count`` pairs (DVE section 3.4).

    One auxiliary from the batch is the next image of the batch, as in the released code. Several are drawn at
    random without repetition; from the batch, a pair's own image is never among them. ``all`` are all others.

    Args:
        count: of pairs.
        auxiliaries: of each pair.
        pool: size of a separate pool to draw from; 0 draws from the batch.
        generator: of the draw.

    Raises:
        ValueError: if there are not as many images to draw from.
    """
    others = pool or count - 1
    wanted = others if auxiliaries == "all" else auxiliaries
    if not 1 <= wanted <= others:
        raise ValueError(
            f"cannot take {wanted} auxiliary images of each pair from {others}: use a larger batch or pool"
        )
    if pool:
        return torch.rand(count, pool, generator=generator).argsort(1)[:, :wanted]
    if wanted == 1:
        return next_in_batch(count)
    further = torch.rand(count, others, generator=generator).argsort(1)[:, :wanted] + 1
    return (torch.arange(count)[:, None] + further) % count


def find_sources(images: PackedImages, config: RunConfig) -> Rows:
    """Rows of the images that have a partner, and a flow where one is needed.

    Raises:
        ConfigError: if there are too few for the run's method.
    """
    spec = config.pairs
    rows = np.arange(len(images))
    if spec.partner == "next":
        folders = np.array(images.folders)
        rows = rows[: -spec.gap][folders[: -spec.gap] == folders[spec.gap :]] if spec.gap < len(images) else rows[:0]
    elif spec.partner == "folder":
        _, folder, members = np.unique(images.folders, return_inverse=True, return_counts=True)
        rows = rows[members[folder] > 1]
    if spec.motion == "flow":
        if images.flow is None:
            raise ConfigError("these pairs need the flow of each frame: put frame.flo (Middlebury) beside frame.png")
        rows = rows[images.has_flow[rows]]
    needed = 2 if config.method == "dve" else 1
    if len(rows) < needed:
        raise ConfigError(f"{config.method} needs at least {needed} images{_partner_hint(config)}, got {len(rows)}")
    return rows


def _partner_hint(config: RunConfig) -> str:
    return {
        "itself": "",
        "next": " with a next one in their folder (the frames of a video, in the order of their names)",
        "folder": " with another one in their folder (a folder for each subject)",
    }[config.pairs.partner]


def _find_classes(images: PackedImages, rows: Rows) -> Rows:
    if images.classes is None:
        raise ConfigError("sampling by class needs the images in folders, one for each class")
    kinds: Rows = np.unique(np.array(images.classes)[rows], return_inverse=True)[1].astype(np.int64)
    return kinds
