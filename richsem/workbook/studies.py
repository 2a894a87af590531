"""The studies of notebooks 09 to 11: which arms are trained, which are compared, what is claimed.

Those of 16 to 19 are in `labs`; the runs behind every notebook and result are listed here.

Where there is no folder of real data (`root`), the drawn stand-ins play the sets.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from richsem.config import REAL, Profile, convert
from richsem.data.catalog import dataset_spec
from richsem.evaluation import MASK
from richsem.recipes import dino_recipes
from richsem.training.run_config import RunConfig
from richsem.workbook import comparison, labs, reference, results, supplement
from richsem.workbook.noisy_boxes import box_noise
from richsem.workbook.study import AP_NAMES, Claim, Study, arm, claims_of, of_all_seeds
from richsem.workbook.unseen_glyphs import unseen_glyphs
from richsem.workbook.when_detic import when_detic

BASELINES = ("baseline", "long baseline")  # of equal detection steps, and of equal compute

# --- Table 4 (notebook 09) ---------------------------------------------------------------------

# Differences that the table states beside RichSem's: what images, soft labels and texts are worth.
FURTHER_PAIRS = (
    ("detic", "baseline"),
    ("soft labels alone", "baseline"),
    ("soft labels alone", "text classifier"),
    ("text classifier", "baseline"),
    ("shuffled teacher", "hard labels"),
    ("linear classifier", "baseline"),
)


def table4(
    profile: Profile,
    *,
    root: str = "",
    detectors: Sequence[str] = supplement.DETECTORS,
    controls: Sequence[supplement.Control] = (),
) -> Study:
    """The baseline, Detic's loss, RichSem and a sceptic's controls, named "detector: arm".

    Of the controls, CenterNet2 has the long baseline; at paper the shuffled teacher, which needs
    cached soft labels, is left out.
    """
    convert(detectors, list[supplement.Family], "DETECTORS")
    convert(controls, list[supplement.Control], "CONTROLS")
    if not detectors:
        raise ValueError(f"DETECTORS is empty; there are {', '.join(supplement.DETECTORS)}")
    made = partial(arm, profile=profile, root=root)
    arms, pairs, claims, paper = {}, [], [], {}
    claimed = claims_of("table4_versus_detic")
    for detector in dict.fromkeys(detectors):
        own = {m: made(supplement.table4_run, detector, m) for m in supplement.METHODS}
        for name in controls:
            if name == "long baseline":
                own[name] = _longer(own["baseline"], profile)
            elif detector == "dino" and not (name == "shuffled teacher" and profile in REAL):
                own[name] = made(supplement.control, name)
        prefix = f"{detector}: "
        arms |= {prefix + name: make for name, make in own.items()}
        gains = [("richsem", other) for other in own if other != "richsem"]
        pairs += [(prefix + a, prefix + b) for a, b in (*gains, *FURTHER_PAIRS)]
        claims += [Claim(*(prefix + text for text in gain[:3]), *gain[3:]) for gain in claimed]
        for name, row in reference.TABLE4[detector].items():
            by_mask = {MASK + metric: value for metric, value in row.items()}
            paper[prefix + name] = row | (by_mask if detector == "centernet2" else {})
    # The paper's of CenterNet2 is mask AP; ours is, too, where a run has a mask head.
    metrics = AP_NAMES | {f"{MASK}AP": f"{MASK}AP", f"{MASK}APr": f"{MASK}AP_r"}
    given = {"arms": arms, "pairs": pairs, "claims": claims, "paper": paper, "metrics": metrics}
    return Study(**given, other_quantity="centernet2")


_longer, _dropped = map(of_all_seeds, (supplement.longer, supplement.dropped))

# --- Figure 2: fewer annotations (notebook 10) -------------------------------------------------

BASELINE, SOFT, RICHSEM, HARD = "baseline", "soft labels", "RichSem", "hard labels"
LONG = "long baseline"  # with all annotations only: what half of them have to beat at equal compute
# With the classifiers that soft labels need, so that nothing else differs.
_CONTROLS = {BASELINE: "text classifier", SOFT: "soft labels alone", HARD: "hard labels"}
HALF = 0.5
# Shares dropped unless others are asked for. At demo those that the claims are about: each further
# one is three runs per seed.
DEFAULT_DROPS = {"smoke": (0.0, HALF), "demo": (0.0, HALF, 0.9)}
DEFAULT_DROPS |= {"rehearsal": (0.0, HALF), "paper": supplement.DROPS}
# The sides of its claims, see `study_numbers.contrasts`.
MOST, NONE = "gain at the largest drop", "gain with all annotations"
FEW, ALL = "RichSem with half of the annotations", "baseline with all annotations"
LONG_ALL = "long baseline with all annotations"


def figure2(
    profile: Profile,
    drops: Sequence[float] = (),  # shares of the annotations; by default the profile's
    *,
    root: str = "",
    hard: bool = False,  # also extra images with their labels but without soft labels
) -> Study:
    """What soft labels and extra images give; arms named (arm, share of annotations dropped).

    A seed draws its own training images, and which annotations are removed. Paper (`dropped`): the
    gap grows with what is missing, and with INet-LVIS half of the annotations beat all of them.
    """
    drops = sorted({*drops} or DEFAULT_DROPS[profile])
    if 0 not in drops or not all(0 <= share < 1 for share in drops):
        raise ValueError(
            f"DROPS is {drops}: give shares from 0 to below 1, and 0 among them, because the "
            "claims and the figure compare with all annotations"
        )
    made = partial(arm, profile=profile, root=root)
    whole = {name: made(supplement.control, control) for name, control in _CONTROLS.items()}
    whole[RICHSEM] = made(supplement.table4_run, "dino", "richsem")
    names = (BASELINE, SOFT, RICHSEM, *([HARD] if hard else []))
    arms = {(name, float(drop)): _dropped(whole[name], drop) for name in names for drop in drops}
    arms[LONG, 0.0] = _longer(whole[BASELINE], profile)
    return Study(arms=arms, claims=claims_of("fig2_annotation_drop"))


# --- Table 3 and kinds of extra data (notebook 11) ---------------------------------------------


def table3(profile: Profile, *, root: str = "") -> Study:
    """The paper's claim at equal detection steps, then at equal compute; arms "set: method"."""
    arms, pairs, paper = {}, [], {}
    made = partial(arm, profile=profile, root=root)
    for key, published in reference.TABLE3.items():
        base, long, full = (f"{key}: {method}" for method in (*BASELINES, "richsem"))
        arms[base] = made(supplement.table3_run, key, extra=False)
        arms[long] = _longer(arms[base], profile)
        arms[full] = made(supplement.table3_run, key, extra=True)
        pairs += [(full, base), (full, long), (long, base)]
        paper |= {f"{key}: {method}": row for method, row in published.items()}
    names = {key: set_name(key, embedded=not root) for key in reference.TABLE3}
    claims = claims_of("table3_other_datasets", **names)
    metrics = {"AP": "AP", "AP50": "AP50"}  # of the COCO protocol
    return Study(arms=arms, pairs=pairs, claims=claims, paper=paper, metrics=metrics)


def kinds(profile: Profile, *, root: str = "") -> Study:
    """What each kind of extra data does for rare classes, and does not to all."""
    made = partial(arm, profile=profile, root=root)
    base = made(supplement.table4_run, "dino", "baseline")
    arms = {"baseline": base, "long baseline": _longer(base, profile)}
    arms |= {kind: made(supplement.extra_kind, kind) for kind in supplement.KINDS}
    pairs = [(kind, baseline) for baseline in BASELINES for kind in supplement.KINDS]
    pairs += [("long baseline", "baseline"), ("inet_lvis", "inet_unl")]
    names = {kind: set_name(kind, embedded=not root) for kind in supplement.KINDS}
    claims = claims_of("extra_data_kinds", **names)
    return Study(arms=arms, pairs=pairs, claims=claims)


def set_name(key: str, *, embedded: bool) -> str:
    """A set's name for a reader, or its stand-in's."""
    spec = dataset_spec(key)
    return spec.stand_in if embedded else spec.name


# --- The runs behind notebooks and results -----------------------------------------------------

# Those that are studies, with the parameters of their notebook that decide them.
STUDIES: dict[str, tuple[Callable[..., Study], dict[str, str]]] = {
    "table4_versus_detic": (table4, {"detectors": "DETECTORS", "controls": "CONTROLS"}),
    "fig2_annotation_drop": (figure2, {"drops": "DROPS", "hard": "HARD_LABELS"}),
    "table3_other_datasets": (table3, {}),
    "extra_data_kinds": (kinds, {}),
    "fig_short_runs": (labs.order, {}),
    "table_peers": (labs.peers, {}),
    "table_equal_compute": (labs.equal_compute, {}),
    "table_who_pays": (labs.who_pays, {"trunk": "TRUNK"}),
    "table_soft_label_parts": (labs.soft_label_parts, {}),
    "table_box_noise": (box_noise, {}),
    "table_unseen_glyphs": (unseen_glyphs, {}),
    "table_image_labels": (labs.image_labels, {}),
    "fig_when_detic": (when_detic, {}),
    "table_full_length": (labs.full_length, {}),
}


def runs_of(notebook: str, values: Mapping[str, Any]) -> list[RunConfig]:
    """The runs, each once, that a notebook ("09_versus_detic") asks for with these parameters."""
    if notebook in ("07_train_richsem", "08_evaluation", "13_qualitative"):
        if values.get("DETECTIONS"):  # the reader's own
            return []
        where = {"seed": values["SEED"], "root": values["DATA_ROOT"]}
        if notebook == "08_evaluation":
            return [dino_recipes.baseline(values["PROFILE"], **where)]
        steps = values.get("STEPS", 0)
        return list(comparison.pair(values["PROFILE"], steps=steps, **where).values())
    found = []
    for name in results.NOTEBOOKS[notebook].results:
        if name in STUDIES:
            make, own = STUDIES[name]
            options = {option: values[parameter] for option, parameter in own.items()}
            one = make(values["PROFILE"], root=values["DATA_ROOT"], **options)
            first, most = values["SEED"], values.get("DECIDING_SEEDS", 0)
            seeds, more = (range(first, first + number) for number in (values["SEEDS"], most))
            found += one.runs(seeds, more).values()
    return list(dict.fromkeys(found))


def runs_behind(
    result: str, profile: Profile = "demo", *, all_seeds: Sequence[int] = (0,), root: str = ""
) -> list[RunConfig]:
    """The runs behind a result with all that may be asked for, of Figure 2 the profile's drops."""
    if result not in STUDIES:  # Figure 4 shows two of Table 4's
        have = ", ".join(STUDIES)
        raise ValueError(f"{result!r} has no runs of its own; those that have: {have}")
    all_arms = {"table4_versus_detic": {"controls": supplement.CONTROLS}}
    all_arms |= {"table_who_pays": {"trunk": True}}
    one = STUDIES[result][0](profile, root=root, **all_arms.get(result, {}))
    return list(dict.fromkeys(one.runs(all_seeds).values()))
