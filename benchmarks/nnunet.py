"""nnU-Net v2's own predictor and trainer, each in a process of its own, for `benchmarks.rivals` and `benchmarks.train`.

    python -m benchmarks.nnunet predict '{"image": FILE, "out": FILE, "windows": 4, ...}'
    python -m benchmarks.nnunet train '{"folder": FOLDER, ...}'

Nothing of nnU-Net is changed but the number of windows that it is given, see `FewWindows`. Its packages:
`pip install --no-deps -r benchmarks/nnunet.txt`, into an environment that has cascade's own.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from benchmarks.process import take_turns

DATASET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "tumor": 2}, "file_ending": ".nii.gz"}
NAME, CONFIGURATION = "Dataset001_Bench", "3d_fullres"


def plans(features: list[int], patch: list[int], spacing_mm: list[float], batch: int = 2) -> dict[str, Any]:
    """What nnU-Net's planner would write for a plain U-Net of these channels on CT."""
    levels = len(features)
    network = {
        "n_stages": levels,
        "features_per_stage": features,
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * levels,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (levels - 1),
        "n_conv_per_stage": [2] * levels,
        "n_conv_per_stage_decoder": [2] * (levels - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    image = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": f"nnUNetPlans_{CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": batch,
        "patch_size": patch,
        "median_image_size_in_voxels": [256.0, 512.0, 512.0],
        "spacing": spacing_mm,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": image,
        "resampling_fn_seg_kwargs": {**image, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**image, "order": 1},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": network,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }
    grey = {"mean": 99.5, "std": 37.1, "percentile_00_5": -15.0, "percentile_99_5": 197.0}
    return {
        "dataset_name": NAME,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {CONFIGURATION: configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": grey},
        "continue_training": False,
    }


class FewWindows(nnUNetPredictor):  # type: ignore[misc]
    """nnU-Net's predictor on the first windows of a case, that many after one to warm up, each timed.

    `count` is the number of windows that the case has, `begun` and `ended` the clock at both ends of each network pass.
    """

    count, windows = 0, 4
    begun: list[float]
    ended: list[float]

    def _internal_get_sliding_window_slicers(self, image_size: tuple[int, ...]) -> Any:
        every = super()._internal_get_sliding_window_slicers(image_size)
        self.count, self.begun, self.ended = len(every), [], []
        return every[: self.windows + 1]

    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        self.begun.append(time.perf_counter())
        logits: torch.Tensor = super()._internal_maybe_mirror_and_predict(x)
        self.ended.append(time.perf_counter())
        return logits

    def seconds_by_window(self) -> tuple[float, float]:
        """Of the network, and of weighing and adding its logits, both without the window that warmed up."""
        network = [b - a for a, b in zip(self.begun, self.ended, strict=True)]
        between = [b - a for a, b in zip(self.ended, self.begun[1:], strict=False)]
        return median(network[1:] or network), median(between or [0.0])


def predict(image: str, out: str, windows: int, **plan: Any) -> dict[str, float]:
    """Seconds by step of one case with random weights; the windows that were left out are added by their number."""
    manager = PlansManager(plans(**plan))
    configuration = manager.get_configuration(CONFIGURATION)
    network = nnUNetTrainer.build_network_architecture(manager, configuration, 1, 3, False)
    predictor = FewWindows(
        use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.windows = windows
    predictor.manual_initialization(
        network, manager, configuration, [network.state_dict()], DATASET, "nnUNetTrainer", None
    )
    start = time.perf_counter()
    preprocessor = configuration.preprocessor_class(verbose=False)
    data, _, properties = preprocessor.run_case([image], None, manager, configuration, DATASET)
    prepared = time.perf_counter()
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu()
    predicted = time.perf_counter()
    with torch.inference_mode():
        logits.nan_to_num_()  # where no window was
    filled = time.perf_counter()
    export_prediction_from_logits(logits, properties, configuration, manager, DATASET, out)
    exported = time.perf_counter()
    each, between = predictor.seconds_by_window()
    left_out = predictor.count - len(predictor.begun)
    return {
        "windows": predictor.count,
        "timed": len(predictor.begun) - 1,
        "window": each,
        "prepare": prepared - start,
        "predict": predicted - prepared + left_out * (each + between),
        "export": exported - filled,
        "network": predictor.count * each,
        "left out": left_out * (each + between),
    }


class SameNetwork(nnUNetTrainer):  # type: ignore[misc]
    """nnU-Net's trainer with the network of cascade, whose outputs are supervised as nnU-Net supervises its own."""

    wanted: dict[str, Any]

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> torch.nn.Module:
        """As the trainer asks for it."""
        from cascade.unet import UNet3d

        wanted = SameNetwork.wanted
        network = UNet3d(tuple(wanted["features"]), num_output_channels, stem=wanted["stem"], deep_levels=2)
        network.forward = network.outputs  # type: ignore[method-assign, assignment]
        return network


def train(folder: str, scans: list[list[str]], kind: str, real: bool, iterations: int, **plan: Any) -> None:
    """Turns of `iterations` of nnU-Net's training: `real` batches of its loader, or one random one over and over."""
    os.environ |= {f"nnUNet_{name}": str(Path(folder) / name) for name in ("raw", "preprocessed", "results")}
    stem = plan.pop("stem")
    features = plan["features"]
    if kind == "recipe":
        SameNetwork.wanted = {"features": features, "stem": stem}
        plan["features"] = [32] * 4  # of its plan only the number of stages counts: outputs at 1, 1/2 and 1/4
    table = plans(**plan)
    _preprocess(Path(folder), scans, table)
    trainer = (SameNetwork if kind == "recipe" else nnUNetTrainer)(
        table, CONFIGURATION, "all", DATASET, torch.device("cpu")
    )
    trainer.initialize()
    loaders = (
        trainer.get_dataloaders() if real else [itertools.repeat(_random_batch(trainer))]
    )  # all kept, as the trainer does
    batches = loaders[0]
    trainer.network.train()

    def work() -> dict[str, Any]:
        seconds, waits = [], []
        for _ in range(iterations):
            start = time.perf_counter()
            batch = next(batches)
            waits.append(time.perf_counter() - start)
            trainer.train_step(batch)
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds, "waits": waits}

    take_turns(work)


def _random_batch(trainer: Any) -> dict[str, Any]:
    """What the loader gives, of noise: an image and its labels at each resolution that is supervised."""
    patch, batch = trainer.configuration_manager.patch_size, trainer.batch_size
    scales = trainer._get_deep_supervision_scales()
    sizes = [[round(n * s) for n, s in zip(patch, scale, strict=True)] for scale in scales]
    target = [torch.randint(0, 3, (batch, 1, *size)).to(torch.int16) for size in sizes]
    return {"data": torch.randn(batch, 1, *patch), "target": target}


def _preprocess(folder: Path, scans: list[list[str]], table: dict[str, Any]) -> None:
    """What `nnUNetv2_preprocess` leaves of `scans`, pairs of image and label, unless it is there."""
    manager = PlansManager(table)
    configuration = manager.get_configuration(CONFIGURATION)
    into = folder / "preprocessed" / NAME / configuration.data_identifier
    if into.exists():
        return
    into.mkdir(parents=True)
    for number, (image, label) in enumerate(scans):
        DefaultPreprocessor(verbose=False).run_case_save(
            str(into / f"case_{number}"), [image], label, manager, configuration, DATASET
        )


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    if sys.argv[1] == "predict":
        print(json.dumps(predict(**given)))
    else:
        train(**given)
