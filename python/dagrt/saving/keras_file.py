"""The `.keras` file: a ZIP of `metadata.json`, `config.json` and `model.weights.h5`, stored uncompressed."""

from __future__ import annotations

import datetime
import io
import json
import os
import zipfile
from typing import Any

from dagrt.saving import registry
from dagrt.saving.atomic import refuse_overwrite, replacing
from dagrt.saving.serialization import deserialize_keras_object, serialize_keras_object
from dagrt.saving.weights_file import read_h5, write_h5

# The version whose format is written.
KERAS_VERSION = "3.15.1"


def save_model(model: Any, filepath: Any, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any) -> None:
    """Writes a model with its weights and optimiser state to a `.keras` file, atomically.

    Args:
        model: a built model whose layers can be described by `get_config`.
        filepath: must end in ".keras".
        overwrite: replace an existing file.
        zipped: False (a folder) is not offered.

    Raises:
        ValueError: another ending, or a model that is not built.
        FileExistsError: the file exists and `overwrite` is False.
        TypeError: something in the model cannot be described, such as a lambda.
    """
    path = os.fspath(filepath)
    if not path.endswith(".keras"):
        advice = (
            "model.export() writes .dagrt files"
            if path.endswith(".dagrt")
            else "save_weights() writes .weights.h5 files"
        )
        raise ValueError(f"save: the filename must end in '.keras', got {path!r}; {advice}")
    if zipped is False:
        raise ValueError("save: zipped=False (a folder) is not offered; a .keras file is one archive")
    if not model.built:
        raise ValueError(f"save: {model.name} has no weights yet; call it on data or build() it first")
    refuse_overwrite(path, overwrite)
    config = json.dumps(serialize_keras_object(model))
    metadata = json.dumps(
        {"keras_version": KERAS_VERSION, "date_saved": datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S")}
    )
    weights = io.BytesIO()
    write_h5(model, weights)
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("metadata.json", metadata)
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", weights.getvalue())


def load_model(filepath: Any, custom_objects: dict | None = None, compile: bool = True, safe_mode: bool = True) -> Any:
    """Reads a model from a `.keras` file. No code from the file is run.

    Args:
        filepath: the file.
        custom_objects: name -> class or function for what the file names and dagrt does not have.
        compile: compile the model as it was, with its optimiser's state.
        safe_mode: accepted for compatibility.

    Returns:
        The model.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no `.keras` file, is damaged, or its weights do not fit its layers.
        TypeError: a class that is unknown here.

    Example:
        >>> import dagrt as keras, tempfile, os
        >>> x = keras.Input((2,))
        >>> model = keras.Model(x, keras.layers.Dense(1)(x))
        >>> path = os.path.join(tempfile.mkdtemp(), "m.keras")
        >>> model.save(path)
        >>> keras.models.load_model(path).count_params()
        3
    """
    path = os.fspath(filepath)
    if not os.path.exists(path):
        raise FileNotFoundError(f"load_model: there is no file {path!r}")
    if os.path.isdir(path):
        return _load(_read_folder(path), path, custom_objects, compile)
    return _load(_read_archive(path), path, custom_objects, compile)


def _read_archive(path: str) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            wanted = ("metadata.json", "config.json", "model.weights.h5")
            bad = archive.testzip()
            if bad is not None:
                raise ValueError(f"{path!r} is damaged: {bad} fails its checksum")
            return {n: archive.read(n) for n in wanted if n in archive.namelist()}
    except (zipfile.BadZipFile, EOFError, OSError) as e:
        raise ValueError(f"{path!r} is not a .keras file, or is damaged: {e}") from None


def _read_folder(path: str) -> dict[str, bytes]:
    members = {}
    for name in ("metadata.json", "config.json", "model.weights.h5"):
        place = os.path.join(path, name)
        if os.path.exists(place):
            with open(place, "rb") as f:
                members[name] = f.read()
    return members


def _load(members: dict[str, bytes], path: str, custom_objects: dict | None, compile: bool) -> Any:
    for name in ("config.json", "model.weights.h5"):
        if name not in members:
            raise ValueError(f"{path!r} is not a .keras file: {name} is missing")
    try:
        config = json.loads(members["config.json"])
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise ValueError(f"{path!r} is damaged: config.json: {e}") from None
    if not isinstance(config, dict) or "class_name" not in config:
        raise ValueError(f"{path!r} is damaged: config.json describes no model")
    if not compile:
        config["compile_config"] = None
    with registry.custom_object_scope(custom_objects or {}):
        try:
            model = deserialize_keras_object(config, custom_objects)
        except (KeyError, AttributeError, IndexError) as e:
            raise ValueError(f"{path!r} is damaged: its configuration makes no model ({type(e).__name__}: {e})") from e
        if compile and getattr(model, "optimizer", None) is not None and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        read_h5(model, io.BytesIO(members["model.weights.h5"]), with_optimizer=compile)
    return model


def load_weights_from_archive(model: Any, path: str, skip_mismatch: bool) -> None:
    members = _read_archive(path)
    if "model.weights.h5" not in members:
        raise ValueError(f"{path!r} is not a .keras file: model.weights.h5 is missing")
    read_h5(model, io.BytesIO(members["model.weights.h5"]), skip_mismatch)
