"""The README's Hub snippets, run one after the other against a Hub on the loopback address."""

import re
from pathlib import Path

from hub_client import Client
from hub_server import Hub

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
SETUP = """
from pathlib import Path
from models import clip, pixels
import hf_vtp, torch

model = clip("CLIPModel")
model.save_pretrained("base")

def embed(model):
    return model.get_image_features(pixel_values=pixels(2)).pooler_output

plain = embed(model)
"""


def test_the_three_snippets_run(tmp_path):
    section = re.split(r"\n###? ", README.split("### On the Hub\n")[1])[0]
    snippets = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert len(snippets) == 3 and all("user/clip" in snippet for snippet in snippets)
    with Hub() as hub:
        client = Client(hub.endpoint, tmp_path)
        try:
            client.run(SETUP)
            files = {p.name.replace(".", "__"): p.read_bytes() for p in (tmp_path / "base").iterdir()}
            hub.put("openai/clip-vit-base-patch16", **files)
            client.run(snippets[0], "hf_user")
            client.run("first = embed(model); assert not torch.equal(first, plain)")
            client.run(snippets[1])
            client.run("assert torch.equal(embed(model), first)")
            client.run(snippets[2], "hf_user")
            client.run("assert torch.equal(embed(again), first)")
            client.run("assert torch.equal(embed(hf_vtp.remove_vtp(again)), plain)")
        finally:
            client.close()
        assert "vtp_config.json" in hub.files("user/clip-half")
        assert b"vtp_config" in hub.files("user/clip-that-remembers")["config.json"]
        assert hub.unknown == []
