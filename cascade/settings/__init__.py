"""Every setting, as frozen dataclasses without defaults: the values stand in `configs/*.toml` and nowhere else.

A user's file is laid over the shipped recipe, `--set table.key=value` over both. A key that nobody knows is an error
that names the file, the key and the known keys.
"""

from cascade.settings.recipes import (
    as_table,
    completed,
    load_settings,
    prediction_settings_from,
    read_table,
    settings_from,
    shipped_table,
)
from cascade.settings.tables import (
    Augmentation,
    Loss,
    Network,
    Optimizer,
    PredictionSettings,
    Sampling,
    Settings,
    Training,
    Window,
)

__all__ = [
    "Augmentation",
    "Loss",
    "Network",
    "Optimizer",
    "PredictionSettings",
    "Sampling",
    "Settings",
    "Training",
    "Window",
    "as_table",
    "completed",
    "load_settings",
    "prediction_settings_from",
    "read_table",
    "settings_from",
    "shipped_table",
]
