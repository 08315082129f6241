"""The demo's page as a Space, with the testbed's models where they lie beside it."""

import os
from pathlib import Path

from hf_vtp.tools.demo.page import build, serve  # noqa: F401  (whoever imports this file builds the page)
from hf_vtp.visualize.shipped import shipped_folder

HERE = Path(__file__).resolve().parent
# beside the page in a Space, at the top of the repository
FOLDERS = [root / "tests" / "testbed" for root in (HERE, HERE.parent.parent)]
TESTBED = next((folder for folder in FOLDERS if folder.is_dir()), None)

if __name__ == "__main__":
    where = "trained" if shipped_folder("llava", TESTBED) else "random"
    print(f"opening the demo on the {where} llava")
    serve(host="0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1", testbed=TESTBED)
