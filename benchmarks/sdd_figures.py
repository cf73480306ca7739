"""Figures as in the SDD paper: photo, class maps of the top five people, SDD; for faces of your own folder.

The pictures show real people: keep them to yourself unless you have the right to publish them.
"""

from __future__ import annotations

from pathlib import Path

from common import arguments, faces, networks, people

from facexai import SDD, HiResCAM, plots


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the figures")
    parser.add_argument("--layer", default="auto")
    parser.add_argument("--count", type=int, default=5)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    photos = people(options.faces)
    chosen = list(photos)[:: max(1, len(photos) // options.count)][: options.count]
    for name, model in networks(options).items():
        gallery = model.gallery({person: faces(paths[::2], model) for person, paths in photos.items()})
        for person in chosen:
            why = SDD(HiResCAM(gallery, layer=options.layer))(faces(photos[person][1:4:2], model))
            path = options.out / f"{name}-{person}.png"
            plots.save(why.plot_rivals(), path)
            print(path.name, why)


if __name__ == "__main__":
    main()
