"""What a run was made with: the commit of the code, versions, and the machine."""

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch


def environment(device: torch.device) -> dict[str, Any]:
    """Describe the code, the versions and the machine of a run."""
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    commit, changed = revision()
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit,
        "uncommitted_changes": changed,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": _torchvision(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": str(device),
        "accelerator": accelerator,
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _torchvision() -> str | None:
    """The version of torchvision, which belongs to one of torch's; None without it, as the runs do not need it."""
    try:
        return version("torchvision")
    except PackageNotFoundError:
        return None


def revision() -> tuple[str | None, bool | None]:
    """Return the commit of this code and whether it has uncommitted changes; None if unknown.

    Only if git tracks this file: the code may be installed inside the checkout of another project.
    """
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None, None
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return _git("rev-parse", "HEAD"), None if changes is None else changes != ""


def _git(*arguments: str) -> str | None:
    """Return the output of a git command in the folder of this file, or None if it fails."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
