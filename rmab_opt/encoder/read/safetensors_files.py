"""Networks in safetensors files: our own, and the saved state of a torch ``Sequential``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rmab_opt.encoder.network import WAY_OUT, Network, dense
from rmab_opt.errors import ModelError
from rmab_opt.records import read_regular, write_atomically

__all__ = ["read_safetensors", "write_safetensors"]

FORMAT = "rmab_opt.network"
"""Key of the metadata that says which activation follows which layer."""


def read_safetensors(path: str | Path, *, activation: Any = None) -> Network:
    """A network from a file of :func:`write_safetensors`, or from a torch ``Sequential``'s saved state.

    Parameters
    ----------
    activation
        Between the layers of a file that does not say it (a plain torch state holds weights only).

    Raises
    ------
    ModelError
        When the file is missing, is not safetensors, or does not say its activations.
    """
    path = Path(path)
    read_regular(path)
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: np.asarray(file.get_tensor(name), dtype=np.float64) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as error:
        raise ModelError(f"{path}: not a safetensors file ({error})", "save the network again.") from error
    prefixes = {name.rsplit(".", 1)[0] for name in tensors if name.endswith(".weight")}
    try:
        order = sorted(prefixes, key=lambda prefix: [int(part) for part in prefix.split(".") if part.isdigit()])
        said = json.loads(metadata[FORMAT]) if FORMAT in metadata else None
    except ValueError as error:
        raise ModelError(f"{path}: its metadata cannot be read ({error})", "save the network again.") from error
    if said is None and activation is None:
        raise ModelError(
            f"{path}: the file does not say which activations stand between its {len(order)} layers",
            "give them, e.g. Network.from_safetensors(path, activation='relu'), or save by to_safetensors.",
        )
    if said is not None and len(said.get("activations", [])) != len(order):
        raise ModelError(f"{path}: {len(order)} weights, {len(said.get('activations', []))} activations", "re-save.")
    rest = set(tensors) - {f"{p}.{kind}" for p in order for kind in ("weight", "bias")} - {"skip", "constant"}
    linked = {name for name in rest if name.startswith("link.") and said is not None}
    links: dict[Any, Any] = {tuple(map(int, name.split(".")[1:])): tensors[name] for name in sorted(linked)}
    rest -= linked
    if rest:
        raise ModelError(f"{path}: {sorted(rest)[0]!r} belongs to no dense layer", WAY_OUT + ".")
    kinds = said["activations"] if said is not None else [activation] * (len(order) - 1) + ["linear"] * bool(order)
    layers = []
    for prefix, kind in zip(order, kinds, strict=True):
        weight = tensors[f"{prefix}.weight"]
        if weight.ndim != 2:
            raise ModelError(
                f"{path}: {prefix}.weight has shape {weight.shape}", "give one row a unit, one column an input."
            )
        layers.append((weight, tensors.get(f"{prefix}.bias", np.zeros(len(weight))), kind))
    constant = tensors.get("constant", np.zeros(1))
    try:
        return Network.from_arrays(
            layers, skip=tensors.get("skip"), constant=float(constant.reshape(-1)[0]), links=links
        )
    except ModelError as error:
        raise ModelError(f"{path}: {error.message}", error.fix) from None


def write_safetensors(network: Network, path: str | Path) -> None:
    """Write weights, activations, skip and constant; :func:`read_safetensors` gives the same network back."""
    tensors: dict[str, np.ndarray] = {"skip": network.skip.copy(), "constant": np.array([network.constant])}
    layers = network.layers()
    for number, (weight, bias, _) in enumerate(layers):
        tensors[f"{number}.weight"] = np.ascontiguousarray(dense(weight))
        tensors[f"{number}.bias"] = np.ascontiguousarray(bias)
    for (source, target), link in network.links().items():
        tensors[f"link.{source}.{target}"] = np.ascontiguousarray(dense(link))
    said = {"activations": [activation.spec() for _, _, activation in layers]}
    write_atomically(path, save(tensors, metadata={FORMAT: json.dumps(said)}))
