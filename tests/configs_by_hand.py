"""Configs with single fields changed, and how they are refused."""

from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from configs import common
from igd_jax.core.errors import InputError
from igd_jax.settings.settings import settings_from


def defaults(root: Path) -> dict[str, Any]:
    """Defaults that name folders which hold what they should."""
    config = common.get_config().to_dict()
    config["data"]["dir"] = make_folder(root / "data", "meta.json")
    return config


def make_folder(path: Path, *files: str) -> str:
    path.mkdir(parents=True, exist_ok=True)
    for file in files:
        (path / file).touch()
    return str(path)


def changed(plain: dict[str, Any], changes: dict[str, Any]) -> ConfigDict:
    """The config with fields set by their full names, whatever their types."""
    changed = {section: dict(fields) for section, fields in plain.items()}
    for name, value in changes.items():
        section, field = name.split(".", 1)
        if field.startswith("args."):
            changed["method"]["args"] = changed["method"]["args"] | {field.removeprefix("args."): value}
        else:
            changed[section][field] = value
    return ConfigDict(changed)


def refusal(plain: dict[str, Any], changes: dict[str, Any], **how: Any) -> str:
    with pytest.raises(InputError) as caught:
        settings_from(changed(plain, changes), **how)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 500
    return line


def fields_of(config: ConfigDict) -> dict[str, Any]:
    return {
        f"{section}.{field}": value for section, fields in config.to_dict().items() for field, value in fields.items()
    }
