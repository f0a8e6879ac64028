"""Support tickets, with Debian's package catalogue as the tickets: two texts and tags in, two answers out.

    python examples/tickets.py

Each package is a ticket: its short description is the title, its long description the body, its debtags the tags. One
head names the section among the largest, the other says whether the package is a library. A fifth of the packages is
held out; accuracies there are shown beside what always naming the commonest answer would reach.

The catalogue comes from apt (Debian or Ubuntu), fetched into a cache folder of its own; nothing on the system changes.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import dagrt as keras
import numpy as np
from dagrt import layers

TITLE, BODY, WORDS, TAGS = 12, 60, 8000, 200


def fetch(cache: Path) -> list[Path]:
    """Package lists and translations, in folders of our own. Kept for the next time."""
    lists = cache / "lists"
    found = lambda: sorted(p for p in lists.glob("*") if re.search(r"_(Packages|Translation-en)(\.\w+)?$", p.name))  # noqa: E731
    if not found():
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        (cache / "cache").mkdir(exist_ok=True)
        options = ["Acquire::Languages=en", f"Dir::State::lists={lists}", f"Dir::Cache={cache / 'cache'}"]
        command = ["apt-get", *(a for o in options for a in ("-o", o)), "update"]
        print("fetching Debian's package catalogue ...", flush=True)
        try:
            result = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            sys.exit("This example reads Debian's package catalogue with apt-get, which this machine does not have.")
        if not found():
            sys.exit(
                f"The catalogue could not be fetched; is there a network?\n{result.stdout[-300:]}{result.stderr[-600:]}"
            )
    return found()


def paragraphs(path: Path):
    """Records of a Debian control file, as dicts of their fields."""
    if path.suffix:
        text = subprocess.run(
            ["/usr/lib/apt/apt-helper", "cat-file", str(path)], capture_output=True, check=True
        ).stdout
    else:
        text = path.read_bytes()
    for block in text.decode("utf-8", "replace").split("\n\n"):
        fields = re.split(r"^([A-Za-z0-9-]+):", block, flags=re.M)
        if len(fields) > 2:
            yield dict(zip(fields[1::2], (f.strip() for f in fields[2::2])))


def tickets(cache: Path) -> list[tuple[str, str, list[str], str]]:
    """(title, body, tags, section) of every package that has all of them."""
    files = fetch(cache)
    bodies: dict[str, str] = {}
    for path in files:
        if "Translation-en" in path.name:
            for p in paragraphs(path):
                bodies[p["Package"]] = p.get("Description-en", "").partition("\n")[2]
    found = {}
    for path in files:
        if "Packages" in path.name:
            for p in paragraphs(path):
                name = p["Package"]
                if bodies.get(name) and "Section" in p:
                    tags = [t.strip() for t in p.get("Tag", "").replace("\n", " ").split(",") if t.strip()]
                    found[name] = (p.get("Description", ""), bodies[name], tags, p["Section"].split("/")[-1])
    return [found[n] for n in sorted(found)]


def numbered(texts: list[str], length: int, vocabulary: dict[str, int]) -> np.ndarray:
    """Word ids, 0 behind the end; 1 is a word that is not in the vocabulary."""
    ids = np.zeros((len(texts), length), "int32")
    for row, text in zip(ids, texts):
        words = [vocabulary.get(w, 1) for w in re.findall(r"[a-z0-9+]+", text.lower())[:length]]
        row[: len(words)] = words
    return ids


def build(sections: int, tags: int):
    title = keras.Input((None,), dtype="int32", name="title")
    body = keras.Input((None,), dtype="int32", name="body")
    tag = keras.Input((tags,), name="tags")
    embed = layers.Embedding(WORDS, 32, mask_zero=True)
    x = layers.concatenate(
        [
            layers.LSTM(32)(embed(title)),
            layers.LSTM(48)(embed(body)),
            layers.Dense(32, activation="relu")(tag),
        ]
    )
    x = layers.Dropout(0.3)(x)
    section = layers.Dense(sections, activation="softmax", name="section")(x)
    library = layers.Dense(1, activation="sigmoid", name="library")(x)
    return keras.Model([title, body, tag], [section, library], name="tickets")


def main() -> dict[str, float]:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dagrt" / "tickets"
    options.add_argument("--cache", type=Path, default=default, help="where the catalogue is kept")
    options.add_argument("--packages", type=int, default=12000, help="how many packages to use")
    options.add_argument("--epochs", type=int, default=3)
    args = options.parse_args()

    everything = tickets(args.cache)
    largest = [s for s, _ in Counter(t[3] for t in everything).most_common(14) if s not in ("libs", "libdevel")]
    names = [*largest, "library", "other"]
    # Sections are what is asked for: the library sections become one, the small ones another.
    place = lambda s: names.index(s) if s in largest else names.index("library" if s.startswith("lib") else "other")  # noqa: E731
    rng = np.random.default_rng(0)
    chosen = [everything[i] for i in rng.permutation(len(everything))[: args.packages]]
    print(f"{len(everything):,} packages, {len(chosen):,} used")

    cut = len(chosen) * 4 // 5
    counts = Counter(w for t in chosen[:cut] for w in re.findall(r"[a-z0-9+]+", (t[0] + " " + t[1]).lower()))
    vocabulary = {w: i + 2 for i, (w, _) in enumerate(counts.most_common(WORDS - 2))}
    # Tags that spell out the answer are left out.
    tag_counts = Counter(g for t in chosen[:cut] for g in t[2] if not re.search("section|devel::lib|role::", g))
    tag_index = {g: i for i, (g, _) in enumerate(tag_counts.most_common(TAGS))}
    multi_hot = np.zeros((len(chosen), len(tag_index)), "float32")
    for row, t in zip(multi_hot, chosen):
        row[[tag_index[g] for g in t[2] if g in tag_index]] = 1
    x = {
        "title": numbered([t[0] for t in chosen], TITLE, vocabulary),
        "body": numbered([t[1] for t in chosen], BODY, vocabulary),
        "tags": multi_hot,
    }
    y = {
        "section": np.array([place(t[3]) for t in chosen]),
        "library": np.array([[t[3].startswith("lib")] for t in chosen], "float32"),
    }
    part = lambda data, rows: {k: v[rows] for k, v in data.items()}  # noqa: E731
    train, test = slice(0, cut), slice(cut, None)

    keras.utils.set_random_seed(0)
    model = build(len(names), len(tag_index))
    model.compile(
        keras.optimizers.Adam(3e-3),
        {"section": "sparse_categorical_crossentropy", "library": "binary_crossentropy"},
        metrics=["accuracy"],
    )
    start = time.perf_counter()
    model.fit(part(x, train), part(y, train), batch_size=64, epochs=args.epochs, validation_split=0.1)
    print(f"trained in {time.perf_counter() - start:.1f} s\n")
    logs = model.evaluate(part(x, test), part(y, test), batch_size=128, verbose=0, return_dict=True)
    held = part(y, test)
    common = Counter(y["section"][train].tolist()).most_common(1)[0][0]
    guess = {"section": float(np.mean(held["section"] == common)), "library": 1 - float(held["library"].mean())}
    guess["library"] = max(guess["library"], 1 - guess["library"])
    print(f"{'held out':10}{'accuracy':>10}{'commonest':>11}")
    for head in ("section", "library"):
        print(f"{head:10}{logs[head + '_accuracy']:10.1%}{guess[head]:11.1%}")
    return {head: logs[head + "_accuracy"] - guess[head] for head in guess}


if __name__ == "__main__":
    main()
