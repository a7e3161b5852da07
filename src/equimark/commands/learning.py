"""Commands that make runs and what they are made from."""

from __future__ import annotations

from argparse import Namespace

import yaml

from equimark import checkpoint, demo, export, flows, hub, processes, report, run, synthetic
from equimark.arguments import USUAL_KEYS
from equimark.commands.labels import image_files, read_training_labels
from equimark.commands.showing import mention, mention_small, print_list, print_table
from equimark.config import ConfigError, load_recipe, make_config, recipe_names, to_mapping
from equimark.geometry import Frame
from equimark.packs import pack


def run_demo(arguments: Namespace) -> None:
    """The whole way on drawn people."""
    made = demo.run_demo(arguments.out, seed=arguments.seed, device=arguments.device, progress=not arguments.quiet)
    path = demo.write_report(made, arguments.out)
    print_table("learned without labels, measured on people not seen", demo.COLUMNS, demo.rows(made.results))
    print(f"report: {path}")


def run_pack(arguments: Namespace) -> None:
    """Images into a pack."""
    try:
        frame = Frame(arguments.size, arguments.frame, arguments.pad, arguments.fill)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    packed = pack(
        arguments.images,
        arguments.out,
        frame,
        progress=not arguments.quiet,
        overwrite=arguments.overwrite,
        shards=arguments.shards,
    )
    unreadable = len((arguments.out / "unreadable.csv").read_text(encoding="utf-8").splitlines()) - 1
    note = f"; {unreadable} could not be read, see {arguments.out / 'unreadable.csv'}" if unreadable else ""
    print(f"packed {len(packed)} images of {frame.size} x {frame.size} into {arguments.out}{note}")
    mention_small(packed, frame.size)


def run_train(arguments: Namespace) -> None:
    """A run, and its report."""
    given = {key: getattr(arguments, key) for key in USUAL_KEYS}
    settings = {key: value for key, value in given.items() if value is not None} | arguments.settings
    if arguments.frame:
        settings["frame.fit"] = arguments.frame
    made = run.train(
        arguments.images,
        arguments.out,
        recipe=arguments.recipe,
        method=arguments.method,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        start_from=arguments.start_from,
        labels=read_training_labels(arguments.landmarks, image_files(arguments.images))
        if arguments.landmarks
        else None,
        parts=arguments.parts,
        device=arguments.device,
        tracker=arguments.tracker,
        progress=not arguments.quiet,
        **settings,
    )
    if not processes.prints():
        return
    last = checkpoint.read_log(made.folder)[-1]
    print(f"trained {made.folder} for {last['step']} steps: {checkpoint.describe_terms(last)}")
    mention(made.warnings)
    images, config = made.images(), made.model.config
    if images is not None:
        mention_small(images, config.pairs.crop_size(config.frame.size))
    print(f"report: {report.write_run_report(made.folder, images)}")


def run_recipes(arguments: Namespace) -> None:
    """What recipes there are, or one in full, as a file that can be changed and trained by."""
    if arguments.name is None:
        print("for your own images: joint-smallnet-64, the default; the others are the papers'\n")
        print_list([(name, _describe_recipe(name)) for name in recipe_names()])
        print("one of them in full: equimark recipes NAME")
        return
    recipe = load_recipe(arguments.name)
    content = {"about": recipe.about, **to_mapping(make_config(recipe.settings))}
    print(f"# equimark train IMAGES --out RUN --recipe {arguments.name}")
    print(yaml.safe_dump(content, sort_keys=False, allow_unicode=True).rstrip())


def _describe_recipe(name: str) -> list[str]:
    recipe = load_recipe(name)
    config = make_config(recipe.settings)
    learner = f"{config.method}, {config.network}"
    return [recipe.about["title"], learner, *(f"{what}: {recipe.about[what]}" for what in ("data", "expected"))]


def run_export(arguments: Namespace) -> None:
    """A run as an ONNX file, or as a folder for the hub."""
    _check_export(arguments)
    if arguments.hub:
        made = hub.write_hub_folder(
            arguments.run, arguments.out, arguments.head, onnx=arguments.onnx, overwrite=arguments.overwrite
        )
        print(f"hub folder: {arguments.out}; choose a license in {arguments.out / hub.CARD_FILE}")
    else:
        made = export.export_onnx(arguments.run, arguments.out, arguments.head, overwrite=arguments.overwrite)
    if made is not None:
        shapes = ", ".join("x".join(map(str, shape)) for shape in made.shapes)
        print(f"{made.path}: {', '.join(made.outputs)}; at most {made.difference:.1e} off the model on images {shapes}")
    if arguments.push:
        print(f"uploaded: {hub.push(arguments.out, arguments.push)}")


def _check_export(arguments: Namespace) -> None:
    if not arguments.hub and (arguments.push or not arguments.onnx):
        raise ConfigError("--push and --no-onnx are for the folder that --hub writes: give --hub as well")
    if not arguments.hub and arguments.out.suffix != ".onnx":
        raise ConfigError(f"--out {arguments.out} must end in .onnx; --hub writes a folder")
    if arguments.push and arguments.push.count("/") != 1:
        raise ConfigError(f"--push wants OWNER/NAME, got {arguments.push!r}")


def run_synthetic(arguments: Namespace) -> None:
    """Drawn images with known landmarks into a folder."""
    out, count, seed = arguments.out, arguments.count, arguments.seed
    if arguments.kind == "portraits":
        people = synthetic.portraits(count, seed=seed)
        synthetic.write(out, people.images, people.landmarks)
        if arguments.parts:
            synthetic.write_parts(arguments.parts, people.parts)
        print(f"drew {count} images and landmarks.csv into {out}")
        return
    video = synthetic.arm(count, seed=seed, speed=arguments.speed)
    synthetic.write(out, video.images, video.landmarks)
    for frame in range(count - 1):
        flows.write(out / f"{frame:06d}{flows.SUFFIX}", video.displacement(frame, frame + 1))
    print(f"drew {count} frames, their flow and landmarks.csv into {out}")
