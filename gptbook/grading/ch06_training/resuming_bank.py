"""Exercise 6.5: a run that continues: its mistakes and styles."""

from gptbook.grading.ch06_training.common import BOOK, SECTIONS, WITH_OPTIMIZERS
from gptbook.grading.ch06_training.resuming import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden

EXACT, DIE = SECTIONS["exact"], SECTIONS["die"]

LOAD_OPTIMIZER = '    run.optimizer.load_state_dict(state["optimizer"])\n'
LOAD_SCHEDULE = '    run.schedule.load_state_dict(state["schedule"])\n'
LOAD_STEP = '    run.step = state["step"]\n'
LOAD_ORDER = '    run.loader.order = state["order"]\n'
LOAD_PLACE = '    run.loader.place = state["place"]\n'
LOAD_SHUFFLING = '    run.loader.random.setstate(state["shuffling"])\n'
LOAD_TORCH = '    torch.set_rng_state(state["torch"])\n'
LOAD_NUMPY = '    np.random.set_state(state["numpy"])'

START = "    run = Run(data, settings)\n"
IF_SAVED = "    if os.path.exists(path):\n        load_run(run, path)\n"
LOOP = "    while run.step < until:\n        run.train_step()\n"
SAVE = "    save_run(run, path)\n"
PARTIAL = 'partial_path = path + ".partial"'
REPLACE = "os.replace(partial_path, path)"

MISTAKES = (
    Mistake(
        "The run begins anew each time",
        "You train from step 0 in every call, so the weights are right and the work is done again. "
        "Where there is a file, go on from it.",
        EXACT,
        10,
        edited(REFERENCE, (IF_SAVED, "")),
        hint=1,
    ),
    Mistake(
        "The optimizer is forgotten",
        "AdamW begins with means of zero and counts from step 1 again: a bump after each resume. "
        "Save and restore the optimizer's state_dict.",
        EXACT,
        10,
        edited(REFERENCE, (LOAD_OPTIMIZER, "")),
        hint=2,
    ),
    Mistake(
        "The schedule is forgotten",
        "The schedule counts from 0 again, so that there is a second warm-up. Save and restore its "
        "state_dict, too.",
        EXACT,
        3,
        edited(REFERENCE, (LOAD_SCHEDULE, "")),
        hint=2,
    ),
    Mistake(
        "The step is forgotten",
        "The run counts its steps from 0 again, and trains too long. Save run.step.",
        EXACT,
        10,
        edited(REFERENCE, (LOAD_STEP, "")),
        hint=2,
    ),
    Mistake(
        "The loader is forgotten",
        "The loader begins with its first pass again, so that some rows come twice and others not "
        "at all. Its order, its place and its random numbers belong to the state.",
        EXACT,
        3,
        edited(REFERENCE, (LOAD_ORDER, ""), (LOAD_PLACE, ""), (LOAD_SHUFFLING, "")),
        hint=3,
    ),
    Mistake(
        "The loader's place is forgotten",
        "You restore the order of a pass and begin it anew. Save how far it has come.",
        EXACT,
        3,
        edited(REFERENCE, (LOAD_PLACE, "")),
        hint=3,
    ),
    Mistake(
        "The loader's order is forgotten",
        "You restore how far the pass has come, but not of which order, and later passes shuffle "
        "that order further. Save the list as well.",
        EXACT,
        3,
        edited(REFERENCE, (LOAD_ORDER, "")),
        hint=3,
    ),
    Mistake(
        "The loader's random numbers are forgotten",
        "The pass in progress ends as it should, and the next one has an order that came before. "
        "The loader has a random.Random of its own: save its getstate().",
        EXACT,
        3,
        edited(REFERENCE, (LOAD_SHUFFLING, "")),
        hint=3,
    ),
    Mistake(
        "The random numbers of torch are forgotten",
        "Dropout draws from torch's generator, which a new run seeds anew. Save "
        "torch.get_rng_state().",
        EXACT,
        4,
        edited(REFERENCE, (LOAD_TORCH, "")),
        hint=4,
    ),
    Mistake(
        "The random numbers of numpy are forgotten",
        "The noise comes from numpy's generator, which is another one than torch's. Save "
        "np.random.get_state() as well.",
        EXACT,
        4,
        edited(REFERENCE, (f"\n{LOAD_NUMPY}", "")),
        hint=4,
    ),
    Mistake(
        "Random numbers begin anew",
        "Run() seeds the generators of torch and numpy, so what you restored before it, or did not "
        "save, is lost. Make the run first, and restore both states last.",
        EXACT,
        4,
        edited(
            REFERENCE,
            (LOAD_TORCH, ""),
            (f"\n{LOAD_NUMPY}", ""),
            (
                START,
                "    if os.path.exists(path):\n"
                "        random_state = torch.load(path, weights_only=False)\n"
                '        torch.set_rng_state(random_state["torch"])\n'
                '        np.random.set_state(random_state["numpy"])\n' + START,
            ),
        ),
        hint=4,
    ),
    Mistake(
        "The random numbers are from before the steps",
        "You note the generators' states when the call begins and save them at its end. Read them "
        "when you save.",
        EXACT,
        4,
        edited(
            REFERENCE,
            (START, f"    noted = torch.get_rng_state(), np.random.get_state()\n{START}"),
            (SAVE, "    torch.set_rng_state(noted[0])\n    np.random.set_state(noted[1])\n" + SAVE),
        ),
        hint=4,
    ),
    Mistake(
        "One step too many",
        "You train while the step is at most `until`, and the last of these steps comes behind it. "
        "Stop as soon as run.step is until.",
        EXACT,
        12,
        edited(REFERENCE, ("while run.step < until:", "while run.step <= until:")),
        hint=1,
    ),
    Mistake(
        "The checkpoint is from before the last step",
        "You save in the loop and then take a step, which the file does not know of. Save behind "
        "the step.",
        EXACT,
        10,
        edited(
            REFERENCE,
            (SAVE, ""),
            (
                LOOP,
                LOOP.replace("        run.train", "        save_run(run, path)\n        run.train"),
            ),
        ),
        hint=1,
    ),
    Mistake(
        "The checkpoint is written in place",
        "You open the file that is there, which empties it, and then write. Write beside it, and "
        "give the new file the old one's name with `os.replace`.",
        DIE,
        1,
        edited(REFERENCE, (PARTIAL, "partial_path = path")),
    ),
    Mistake(
        "The old checkpoint is removed first",
        "Between removing and renaming there is no checkpoint at all. `os.replace` takes the old "
        "one's place in one step.",
        DIE,
        1,
        edited(
            REFERENCE,
            (REPLACE, f"if os.path.exists(path):\n        os.remove(path)\n    {REPLACE}"),
        ),
    ),
)

WORLD = REFERENCE[: REFERENCE.index("def save_run")]

STYLES = {
    "pickled whole, all objects": WORLD
    + """
import pickle


def train(data, settings, path, until):
    try:
        with open(path, "rb") as file:
            kept = pickle.load(file)
    except FileNotFoundError:
        kept = None
    run = Run(data, settings)
    if kept:
        run.model, run.optimizer, epoch, run.step = kept["parts"]
        run.schedule.load_state_dict(epoch)
        run.schedule.optimizer = run.optimizer
        run.loader.__dict__.update(kept["loader"])
        torch.random.set_rng_state(kept["rng"][0])
        np.random.set_state(kept["rng"][1])
    for _ in range(until - run.step):
        run.train_step()
    kept = {
        "parts": (run.model, run.optimizer, run.schedule.state_dict(), run.step),
        "loader": dict(vars(run.loader)),
        "rng": (torch.random.get_rng_state(), np.random.get_state()),
    }
    with open(path + "~", "wb") as file:
        pickle.dump({k: v for k, v in kept.items()}, file)
    os.rename(path + "~", path)
    return run.weights()
""",
    "JSON, and a loader that is replayed": WORLD
    + """
import json
import tempfile


def numbers(tensor):
    return {"shape": list(tensor.shape), "values": tensor.flatten().tolist()}


def tensor_of(item):
    return torch.tensor(item["values"]).reshape(item["shape"])


def train(data, settings, path, until):
    run = Run(data, settings)
    params = list(run.model.parameters())
    if os.path.isfile(path):
        with open(path) as file:
            state = json.load(file)
        for p, item in zip(params, state["weights"]):
            p.data.copy_(tensor_of(item))
        for p, item in zip(params, state["moments"]):
            run.optimizer.state[p] = {key: tensor_of(value) for key, value in item.items()}
        run.step = state["step"]
        for _ in range(run.step):
            run.loader.next_rows()
        run.schedule.last_epoch = run.step
        for group, rate in zip(run.optimizer.param_groups, state["rates"]):
            group["lr"] = rate
        torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
        name, keys, *rest = state["numpy"]
        np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    while run.step < until:
        run.train_step()
    name, keys, *rest = np.random.get_state()
    state = {
        "weights": [numbers(p.detach()) for p in params],
        "moments": [
            {key: numbers(value) for key, value in run.optimizer.state[p].items()} for p in params
        ],
        "step": run.step,
        "rates": [group["lr"] for group in run.optimizer.param_groups],
        "torch": torch.get_rng_state().tolist(),
        "numpy": [name, keys.tolist(), *rest],
    }
    handle, beside = tempfile.mkstemp(dir=os.path.dirname(path))
    with os.fdopen(handle, "w") as file:
        json.dump(state, file)
    os.replace(beside, path)
    return run.weights()
""",
    "a class, and safe loading": WORLD
    + """
from pathlib import Path


class Checkpoint:
    def __init__(self, run, path):
        self.run, self.path = run, Path(path)

    def state(self):
        loader = self.run.loader
        kind, keys, *rest = np.random.get_state()
        return {
            "states": [part.state_dict() for part in self.parts()],
            "step": self.run.step,
            "loader": [loader.order, loader.place, loader.random.getstate()],
            "torch": torch.get_rng_state(),
            "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
        }

    def parts(self):
        return self.run.model, self.run.optimizer, self.run.schedule

    def save(self):
        beside = self.path.with_suffix(".new")
        torch.save(self.state(), beside)
        beside.replace(self.path)

    def load(self):
        state = torch.load(self.path, weights_only=True)
        for part, saved in zip(self.parts(), state["states"]):
            part.load_state_dict(saved)
        self.run.step = state["step"]
        loader = self.run.loader
        loader.order, loader.place, (version, inner, gauss) = state["loader"]
        loader.random.setstate((version, tuple(inner), gauss))
        torch.set_rng_state(state["torch"])
        kind, keys, *rest = state["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))


def train(data, settings, path, until):
    run = Run(data, settings)
    checkpoint = Checkpoint(run, path)
    if checkpoint.path.exists():
        checkpoint.load()
    while run.step < until:
        run.train_step()
    checkpoint.save()
    return run.weights()
""",
}

PART = Part("train", CHECKS, REFERENCE, MISTAKES, STYLES, Forbidden(BOOK), preload=WITH_OPTIMIZERS)
