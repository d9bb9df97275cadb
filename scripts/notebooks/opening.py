"""The first code of every notebook: on Colab it gets the kit, in a checkout it goes to the root."""

# %%
# On Colab this gets the kit and what it needs; in a checkout it only goes to the root.
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = ""  # the address of the kit, https://github.com/OWNER/NAME

here = Path.cwd()
root = next((folder for folder in (here, *here.parents) if (folder / "components").is_dir()), None)
if root is None:
    if not REPOSITORY:
        raise SystemExit("Set REPOSITORY above to the address of the kit, https://github.com/OWNER/NAME")
    root = here / Path(REPOSITORY).name
    subprocess.run(["git", "clone", "--depth=1", REPOSITORY, str(root)], check=True)
    install = ["-m", "pip", "install", "--quiet", "--editable", f"{root}[runs]", "timm"]
    subprocess.run([sys.executable, *install], check=True)
os.chdir(root)
sys.path.insert(0, str(root))
