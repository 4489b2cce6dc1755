"""The model card that goes with exported weights (Mitchell et al. 2019)."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from lungjax.data import splits
from lungjax.data.context import Context
from lungjax.export.signature import Signature
from lungjax.prediction.tiling import Tiling, reach
from lungjax.train.state import parameter_count
from lungjax.train.trained import Trained

_TITLES = {
    "pretrain": "an encoder",
    "segment": "a segmenter of nodules",
    "sift": "a candidate classifier",
    "classify": "a nodule classifier",
    "diagnose": "a patient classifier",
}
_WHAT = {
    "pretrain": "An encoder of chest CT slices, pretrained without labels by SimCLR (Chen et al. 2020).",
    "segment": "A segmenter, a U-Net: at each pixel of a CT slice, the probability that at least two of four readers "
    "would have marked it as part of a lung nodule.",
    "sift": "A candidate classifier (false-positive reduction): from three CT slices around what a detector proposes, "
    "in HU, the probability that at least two of four readers would have outlined it as a nodule.",
    "classify": "A nodule classifier: from a CT patch around a nodule, in HU, the probability that LIDC-IDRI's readers "
    "would call it malignant (their median above 3 of 5, not below), and the nine ratings that they would give.",
    "diagnose": "A patient classifier: from CT patches around all of a patient's nodules, in HU, the probability that "
    "one of them is malignant, as LIDC-IDRI's readers or the labels of its training have it, by gated attention (Ilse "
    "et al. 2018).",
}
_LIMITS = """\
**Research software, not a medical device. Not for diagnosis or treatment.**

- Trained on LIDC-IDRI alone: adults, chest CT of 2000 to 2010, mostly from North America, enriched for nodules.
{scope}
- Other scanners, doses, reconstructions, contrast or children have not been tried.
"""
_SCOPE = """\
- Scored on slices that a reader marked: how well nodules are outlined, not how well they are found. For the bundled
  networks docs/results/whole-scans.md has figures of that.
- Where it was trained on crops around nodules, these lay up to {reach_px} px off the middle of {tile_px} x {tile_px}
  px: it misses nodules that lie further off. `lungjax predict` lays its tiles accordingly.
- The reference is what readers drew, and they differ; their own agreement stands beside the figures."""
_SCOPE_PRETRAINED = """\
- Features to start from, and no prediction: what they are worth is measured after fine-tuning, see the
  documentation."""
_SCOPE_SIFTED = """\
- The candidate must lie in the middle of its slices. It was trained on the candidates of one detector; those of
  another are different, and its probabilities are then less certain.
- Most of its training candidates come from crops around nodules. Elsewhere in a scan fewer candidates are nodules, so
  there its probabilities are too high; the operating points allow for it."""
_SCOPE_GRADED = """\
- Malignant is the readers' opinion, not pathology; nodules with a median of 3 have no label, and no figures.
- The nodule must lie in the middle of its patch: it classifies nodules, it finds none."""
_LICENCE = """\
Weights: Apache-2.0. Trained on LIDC-IDRI, CC BY 3.0: Armato SG III et al., *Data From LIDC-IDRI*, The Cancer Imaging
Archive, 2015, doi:10.7937/K9/TCIA.2015.LO9QL9SX; Armato SG III et al., Medical Physics 38:915-931, 2011.
"""
_HEADER = """\
---
license: apache-2.0
library_name: {library}
pipeline_tag: {kind}
tags:
- medical
- ct
- lung-nodule
- lidc-idri
- jax
---

"""
_KINDS = {
    "pretrain": "image-feature-extraction",
    "segment": "image-segmentation",
    "sift": "image-classification",
    "classify": "image-classification",
    "diagnose": "image-classification",
}
_LIBRARIES = {"torchvision": "torchvision", "onnx": "onnx", "stablehlo": "jax"}
_WITH_LUNGJAX = {
    "pretrain": """\
import lungjax
import numpy as np

model = lungjax.load("{where}")
hu = np.full((4, {planes}{side_px}, {side_px}), -850, np.int16)  # {slices} of a chest CT, in HU
features = model.embed(hu)
""",
    "segment": """\
import lungjax
import numpy as np

model = lungjax.load("{where}")
hu = np.full((4, {planes}{side_px}, {side_px}), -850, np.int16)  # {slices} of a chest CT, in HU
probability = model.predict(hu)
""",
    "sift": """\
import lungjax
import numpy as np

model = lungjax.load("{where}")
hu = np.full((4, 3, {side_px}, {side_px}), -850, np.int16)  # 3 slices 2.5 mm apart of each of 4 candidates, in HU
probability = model.predict(hu, pixel_mm=0.7)  # between pixel centres
""",
    "classify": """\
import lungjax
import numpy as np

model = lungjax.load("{where}")
hu = np.full((4, {side_px}, {side_px}), -850, np.int16)  # patches of a chest CT, in HU, a nodule in the middle of each
predicted = model.predict(hu, pixel_mm=0.7)  # between pixel centres
probability, ratings = predicted.probability, predicted.ratings
""",
    "diagnose": """\
import lungjax
import numpy as np

model = lungjax.load("{where}")
hu = np.full((4, 2, {side_px}, {side_px}), -850, np.int16)  # 2 patches of each of 4 patients, a nodule in the middle
predicted = model.predict(hu, pixel_mm=0.7)  # between pixel centres
probability, attention = predicted.probability, predicted.attention
""",
}
"""How a network is used with lungjax, by its task; `where` is its folder, or a bundled model's name."""
_WITHOUT_LUNGJAX = {
    "orbax": """\
from pathlib import Path
from orbax.checkpoint import v1 as ocp

weights = ocp.load(Path("checkpoint").absolute())  # weights["params"]["encoder"]
""",
    "torchvision": """\
import safetensors.torch, torch, torchvision

model = torchvision.models.resnet{depth}()
model.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)  # One channel: windowed to [0, 1], not normalised.
model.fc = torch.nn.Identity()
model.load_state_dict(safetensors.torch.load_file("model.torchvision.safetensors"))
features = model.eval()(torch.zeros(4, 1, 96, 96))
""",
    "stablehlo": """\
from pathlib import Path

import numpy as np
from jax import export

network = export.deserialize(bytearray(Path("model.stablehlo").read_bytes()))
{inputs}{outputs} = network.call({names})
""",
    "onnx": """\
import numpy as np
import onnxruntime

network = onnxruntime.InferenceSession("model.onnx")
{inputs}{outputs} = network.run(None, {{{pairs}}})
""",
}
"""How a folder of each format is used without lungjax, from within it."""
_LOADS = (
    "made with jax {jax} and jaxlib {jaxlib}. JAX promises that jaxlib releases from three weeks before that one to "
    "six months after it load and run this file{until}. Others may refuse: then use that jaxlib, or export again"
)
"""Of StableHLO, as jax.export's compatibility guarantees have it."""
_UNTIL = {"0.10.2": ", so those until 17 December 2026 at least"}
"""Six months after the files in the wheel of the locked jaxlib were built; no installed package tells its date."""
_UNITS = {"sift": "candidates", "classify": "nodules", "diagnose": "patients"}
"""What is classified, by the task."""
_NO_FIGURES = (
    "None were stored with the run: `lungjax evaluate` makes them. For the bundled networks docs/results has figures."
)
_WHICH = {"outlined": "whose outlines are known", "several_readers": "that several readers outlined"}
_PROBED = """\
and without labels: `accuracy` is how often a slice's other view is recognised among all views of the batch; `knn_auc`
and `linear_auc` are the ROC AUC of simple classifiers on the frozen features, for whether at least two readers marked
the same pixel (`majority`), and for the readers' median of malignancy, 4 and 5 against 1 and 2. 0.5 is chance."""
_GRADED = ("roc_auc", "pr_auc", "sensitivity_at_specificity_0.90", "brier", "ece")
_SCORES = ("dice", "iou", "precision", "recall")


def card_text(trained: Trained, given: Signature, *, format: str, dtype: str, difference: float) -> str:
    """The card, as Markdown.

    Args:
      trained: what is exported.
      given: the network's signature.
      format: the folder's format.
      dtype: of the weights in the file.
      difference: the greatest difference of its outputs from the original's, from `lungjax.export.parity.difference`.
    """
    config, count = trained.config, parameter_count(trained.variables["params"])
    counts = {split: sum(s == split for s in trained.patients.values()) for split in splits.SPLITS}
    rows = {
        "network": f"{count:,} parameters, {dtype}; encoder {dict(config.model.encoder)}",
        "trained on": f"{counts['train']} patients; chosen and calibrated with {counts['val']} others (val), "
        f"{counts['test']} kept for testing; split {splits.digest(trained.patients)}, by a hash of the patient's id; "
        "LIDC-IDRI-0001 and -0003 left out",
        "steps": f"{trained.step:,} of {config.steps:,}, batch {config.data.batch_size}, seed {config.seed}",
        "started from": config.init_from or "random weights",
        "command": f"`{trained.origin.get('command', 'unknown')}`",
        "hardware, date": f"{trained.origin.get('hardware', 'unknown')}; {trained.origin.get('started', 'unknown')}",
        "versions": ", ".join(f"{k} {v}" for k, v in trained.origin.get("versions", {}).items()) or "unknown",
        "parity": f"{format}, {dtype}, run in a fresh process, against the run's float32 on golden inputs: "
        f"{difference:.1e} at most",
    }
    if format == "stablehlo":
        until = _UNTIL.get(version("jaxlib"), "")
        rows["loads with"] = _LOADS.format(jax=version("jax"), jaxlib=version("jaxlib"), until=until)
    scope = {"segment": _SCOPE, "pretrain": _SCOPE_PRETRAINED, "sift": _SCOPE_SIFTED}.get(config.task, _SCOPE_GRADED)
    if config.task == "segment":
        tile_px = int(config.data.crop_px) or Tiling.of(config, trained.seen.get("side_px")).tile_px
        scope = scope.format(tile_px=tile_px, reach_px=round(reach(config) * tile_px))
    if trained.calibration:
        rows["calibration"] = _calibrated(config.task, trained.calibration)
    if trained.operating_points:
        rows["operating points"] = _operating_points(trained.operating_points)
    about = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    figures = "\n".join(_reported(config.task, name, report) for name, report in trained.figures.items())
    header = _HEADER.format(library=_LIBRARIES.get(format, "lungjax"), kind=_KINDS[config.task])
    return (
        f"{header}# lungjax: {_TITLES[config.task]}\n\n{_WHAT[config.task]}\n\n| | |\n|---|---|\n{about}\n\n"
        f"## Use\n\n{use_section(trained, given, format=format)}\n"
        f"## Figures\n\n{figures or _NO_FIGURES}\n\n"
        f"## Limits\n\n{_LIMITS.format(scope=scope)}\n## Licence\n\n{_LICENCE}"
    )


def use_section(trained: Trained, given: Signature, *, format: str, where: str = ".") -> str:
    """The section "Use" of a card, as Markdown.

    Args:
      trained, given, format: as for `card_text`.
      where: what `lungjax.load` is given: the folder, as seen from within it, or a bundled model's name.
    """
    weights = format in ("safetensors", "orbax")
    task = "pretrain" if format == "torchvision" else trained.config.task
    shown = Context.of(trained.config)
    planes, slices = (
        ("", "slices") if not shown.slices else (f"{shown.planes}, ", "slices, each between its neighbours,")
    )
    side_px = given.inputs[0].shape[-1]
    code = _WITH_LUNGJAX[task].format(where=where, side_px=side_px, planes=planes, slices=slices)
    meanings = "".join(f"- `{array.name}`: {array.meaning}.\n" for array in given.outputs)
    own = f"```python\n{code}```\n\n{meanings}"
    if shown.slices:
        scan = "hu, slice_mm=1.25" if shown.step_mm else "hu"
        own += (
            f"\nIt is shown {given.inputs[0].meaning}. All slices of one scan, (slices, rows, columns), may also be "
            f"given as they are: `model.{'embed' if task == 'pretrain' else 'predict'}({scan})`.\n"
        )
    if task == "segment":
        scan = 'lungjax.predict(lungjax.read_scan("FOLDER_OR_FILE"), model=model)'
        own += f"\nNodules of a whole scan: `{scan}`.\n"
    if weights:
        folder = "FOLDER" if where == "." else where
        own += f"\nA training starts from this network by `--config.init_from={folder}`.\n"
    if format not in _WITHOUT_LUNGJAX:
        return own
    other = _without_lungjax(given, format, trained.config.model.encoder.depth)
    return f"{own}\nWithout lungjax:\n\n{other}" if weights else f"{other}\nWith lungjax:\n\n{own}"


def _without_lungjax(given: Signature, format: str, depth: int) -> str:
    inputs = "".join(
        f"{array.name} = np.{'zeros' if array.name == 'hu' else 'ones'}({(4, *array.shape)}, np.float32)"
        f"  # {array.meaning}\n"
        for array in given.inputs
    )
    names = [array.name for array in given.inputs]
    code = _WITHOUT_LUNGJAX[format].format(
        depth=depth,
        inputs=inputs,
        names=", ".join(names),
        pairs=", ".join(f'"{name}": {name}' for name in names),
        outputs=", ".join(array.name for array in given.outputs) + ("," if len(given.outputs) == 1 else ""),
    )
    meanings = ""
    if "{inputs}" in _WITHOUT_LUNGJAX[format]:
        for array in (*given.inputs, *given.outputs):
            meanings += f"- `{array.name}` ({', '.join(map(str, ('batch', *array.shape)))}): {array.meaning}.\n"
    return f"```python\n{code}```\n" + (f"\n{meanings}" if meanings else "")


def _calibrated(task: str, known: dict[str, Any]) -> str:
    if task == "segment":
        what = "of the share of readers that `lungjax evaluate` scores and samples, not of the majority's probability"
        return f"{what}, by {len(known['share'])} knots, fitted on {known['fitted_on']:,} val slices"
    sign = "+" if known["offset"] >= 0 else "-"
    line = f"sigmoid({known['slope']:.3g} * logit {sign} {abs(known['offset']):.3g})"
    held = ""
    if "prevalence" in known:
        share = f"{100 * known['prevalence']:.1f} % of {known['prevalence_of']:,}"
        held = f"; {share} train and val {_UNITS[task]} are positive"
    return f"{line}, fitted on {known['fitted_on']} val {_UNITS[task]}{held}"


def _operating_points(points: dict[str, Any]) -> str:
    pairs = zip(points["false_positives_a_scan"], points["threshold"], strict=True)
    each = ", ".join(f"{threshold:.3f} for {rate:g}" for rate, threshold in pairs)
    return (
        f"thresholds for false positives a scan: {each}; default {points['default']:g}; fitted on {points['fitted_on']}"
    )


def _reported(task: str, name: str, report: dict[str, Any]) -> str:
    if task == "pretrain":
        rows = "\n".join(f"| {score} | {value:.3f} |" for score, value in sorted(report.items()))
        return f"On the validation patients {_PROBED}\n\n| | |\n|---|---|\n{rows}\n"
    return _graded(name, report, _UNITS[task]) if task in _UNITS else _figures(name, report)


def _figures(name: str, report: dict[str, Any]) -> str:
    head = f"`{name}`: {report['patients']} patients of split {report['split']}, {report['slices']:,} slices"
    lines = [f"{head}; {report['interval']}.\n", "| pooled | model | readers |", "|---|---|---|"]
    for score in _SCORES:
        cells = [_cell(side["pooled"][score]) for side in (report, report.get("readers")) if side]
        lines.append(f"| {score} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _graded(name: str, report: dict[str, Any], unit: str) -> str:
    counted = "" if unit == "patients" else f", {report['nodules']:,} {unit}"
    head = f"`{name}`: {report['patients']} patients of split {report['split']}{counted}"
    lines = [f"{head}; {report['interval']}.\n", "| | model |", "|---|---|"]
    lines += [f"| {score} | {_cell(report[score])} |" for score in _GRADED]
    for which, part in report["on_fewer"].items():
        for other, figures in part["others"].items():
            difference = _cell(figures["difference"]["roc_auc"])
            those = f"the {part['nodules']:,} {unit} {_WHICH.get(which, which)}"
            lines.append(f"| roc_auc less that of the {other}, of {those} | {difference} |")
    if readers := report.get("readers"):
        reference = f"against the median of the other readers, on {readers['readings']:,} readings"
        others = ((name, other["roc_auc"]) for name, other in readers["others"].items())
        for name, figure in (("model", readers["roc_auc"]), *others):
            whose = name if name.startswith("one ") else f"the {name}"
            lines.append(f"| roc_auc of {whose} {reference} | {_cell(figure)} |")
    return "\n".join(lines) + "\n"


def _cell(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "-"
    interval = f" [{figure['low']:.3f}, {figure['high']:.3f}]" if figure["low"] is not None else ""
    return f"{figure['value']:.3f}{interval}"
