# %% [markdown]
# # Eight verbs on real photographs
#
# Solar cells from the ELPV data set (a package of the extra `demo`): functional or defective. The network is timm's
# smallest and trained for one epoch, so that this is done soon; for a result worth having, take `resnet18` and more.
#
# Run it as a script, or open it cell by cell in an editor that knows `# %%`.

# %%
import sys
from pathlib import Path

import fixres

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example")

# %% [markdown]
# ## Train small, then fix at a larger size

# %%
run = fixres.train(
    None,
    OUT / "run",
    data={"uri": "elpv:", "workers": 0},
    model={"name": "test_resnet"},
    train={"size": 48, "epochs": 1, "batch_size": 64, "lr": 0.05},
    fix={"size": 64},
    evaluation={"sizes": [48, 64]},
    output={"tracker": "none"},
)
run  # in a notebook: a table of what was found on the reported split

# %% [markdown]
# ## Which size is worth it?

# %%
advice = fixres.advise(run.folder, sizes=(48, 64, 80), crop_ratios=(0.875,), fixed=False)
advice

# %%
larger = fixres.fix(run.folder, 80, OUT / "fixed-80")
measured = fixres.evaluate(larger.folder, sizes=(64, 80))
measured

# %% [markdown]
# ## Pictures one by one
#
# Paths, bytes, PIL pictures and arrays are all fine; what cannot be read has its `error` set.

# %%
from skimage import data  # noqa: E402

predictions = fixres.predict(larger.folder, [data.chelsea(), data.coffee(), Path("nowhere.jpg")], threshold=0.9)
predictions

# %% [markdown]
# ## Arrays for everything else

# %%
extracted = fixres.extract(larger.folder, OUT / "arrays")
accuracy = 100 * (extracted.softmax().argmax(1) == extracted.labels()).mean()

# %% [markdown]
# ## One file for other programs, compared with the network before it is left

# %%
exported = fixres.export(larger.folder, OUT / "net.pt2", format="torch")
exported

# %%
for line in (
    f"{run.split}: {run.rows[0]['top1']:.1f} % at 48 px, {run.top1:.1f} % fixed at {run.size} px",
    f"advice: {advice.size} px, {advice.why}",
    f"fixed at 80 px: {measured.results[1]['top1']:.1f} %, from the arrays {accuracy:.1f} %",
    f"no solar cells: {[p.name or p.error for p in predictions]}",
):
    print(line)
