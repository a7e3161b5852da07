"""How long the page takes to answer, with many images: seconds from a request to its answer, on this machine.

    python benchmarks/page.py RUN --images 10000 --out page.json

The images are drawn people as JPEG files of 256 px, 64 of them over and over. The server answers in this process,
without a browser or a network between. *At the start* nothing has been looked at yet; *at rest* the descriptors of the
images asked for are kept. Medians of several requests, and the slowest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from PIL import Image

from equimark.app.desk import Desk
from equimark.app.server import make_app
from equimark.model import LandmarkModel
from equimark.synthetic import portraits

DRAWINGS, SIDE = 64, 256
ON_THE_SCREEN, MANY, TIMES = 21, 200, 9


def draw_files(folder: Path, count: int) -> None:
    for i, pixels in enumerate(portraits(min(DRAWINGS, count), seed=0, size=SIDE).images):
        first = folder / f"{i:06d}.jpg"
        Image.fromarray(pixels).save(first, quality=92)
        for copy in range(i + DRAWINGS, count, DRAWINGS):
            (folder / f"{copy:06d}.jpg").write_bytes(first.read_bytes())


def seconds(ask: Callable[[int], Any], times: int = TIMES) -> dict[str, float]:
    taken = []
    for i in range(times):
        begun = time.perf_counter()
        ask(i)
        taken.append(time.perf_counter() - begun)
    return {"median": round(statistics.median(taken), 3), "slowest": round(max(taken), 3)}


def measure(client: TestClient, count: int) -> dict[str, dict[str, float]]:
    def page(number: int) -> list[str]:
        places = {"first": (number * 60) % max(1, count - 60), "count": 60}
        return [item["key"] for item in client.get("/api/images", params=places).raise_for_status().json()["items"]]

    def explore(keys: list[str], i: int) -> None:
        asked = {"points": [[keys[0], 100 + i, 120]], "targets": keys, "heat_of": 0, "colours": None, "reference": None}
        client.post("/api/explore", json=asked).raise_for_status()

    shown = client.get("/api/images", params={"count": MANY}).json()["items"]
    keys = [item["key"] for item in shown]
    return {
        "first click, 20 images that nobody has looked at": seconds(lambda i: explore(keys[:ON_THE_SCREEN], i), 1),
        "click, 20 images at rest": seconds(lambda i: explore(keys[:ON_THE_SCREEN], i)),
        "first click, 200 images": seconds(lambda i: explore(keys[:MANY], i), 1),
        "click, 200 images at rest": seconds(lambda i: explore(keys[:MANY], i)),
        "a page of the gallery": seconds(lambda i: page(7 * i)),
        "thumbnails, sixty": seconds(lambda i: [client.get(f"/api/images/{key}/thumbnail") for key in keys[:60]], 3),
        "what to label next": seconds(lambda i: client.get("/api/suggestions", params={"count": 1}).raise_for_status()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="with descriptors")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        folder.mkdir()
        draw_files(folder, arguments.images)
        begun = time.perf_counter()
        model = LandmarkModel.load(arguments.run, device="cpu")
        desk = Desk(model, arguments.run, folder, work=Path(place) / "work")
        with TestClient(make_app(desk), base_url="http://127.0.0.1") as client:
            client.get("/api/images", params={"count": 60}).raise_for_status()
            results: dict[str, Any] = {"ready": round(time.perf_counter() - begun, 2)}
            results |= measure(client, arguments.images)
    for what, taken in results.items():
        print(f"{what:50} {taken}")
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
